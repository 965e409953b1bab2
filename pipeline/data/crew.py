"""The processes of a pool and the thread that serves them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

import psutil

from pipeline.data.wire import decode, encode, receive, send
from pipeline.data.worker import Bug, Lost
from pipeline.errors import Reason, UserError
from pipeline.process import boot, start_connected, threads

POLL = 0.1
"""Seconds between two looks at the time and the memory of a worker."""
START_SECONDS = 120.0
"""Longest time in which a worker must be ready: imports from a slow disk, nothing else."""
START_ATTEMPTS = 3
"""Workers that may fail in a row before their first item; then something is wrong with this machine."""

BOOT = boot("pipeline.data.worker")


@dataclass(eq=False)
class Run:
    """One call of `Pool.run`: `started` items were handed out, `taken` were read."""

    task: Callable[[Any], Any]
    items: Sequence[Any]
    ahead: int
    ready: Callable[[int], bool] | None = None
    started: int = 0
    taken: int = 0
    results: dict[int, Any] = field(default_factory=dict)


class Worker:
    """One process as its parent sees it; `since` is None while it waits for something to do.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self) -> None:
        self.process, self.connection = start_connected(BOOT, os.environ | threads(1))
        self._looked_at = psutil.Process(self.process.pid)
        self.run: Run | None = None
        self.number: int | None = None
        self.since: float | None = None
        self.idle_memory = 0

    @property
    def busy(self) -> bool:
        """It has an item."""
        return self.since is not None and self.number is not None

    def answered(self) -> bool:
        """Its answer, or its end, waits to be taken in."""
        return bool(wait([self.connection], 0))

    def ask(self, run: Run, number: int | None) -> None:
        """Send an item of a run; None: let it import the task.

        Raises:
            OSError: the process is gone.
        """
        items = () if number is None else (run.items[number],)
        request = encode((run.task, items))
        self.idle_memory = self.memory()
        send(self.connection, request)
        self.run, self.number, self.since = run, number, time.monotonic()

    def memory(self) -> int:
        """Resident bytes; 0 when it is gone."""
        try:
            return int(self._looked_at.memory_info().rss)
        except psutil.Error:
            return 0

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.connection.close()

    def cause_of_death(self) -> Lost:
        """Why the process closed its connection by itself."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Lost(Reason.CRASHED, "it closed its connection")
        if code == -signal.SIGKILL:
            return Lost(Reason.OUT_OF_MEMORY, "killed by the system")
        return Lost(Reason.CRASHED, signal.Signals(-code).name if code < 0 else f"exit status {code}")


class Crew:
    """The workers of a pool and the thread that serves them. It does not know its pool, which it must not keep alive.

    `changed` guards the run, its `taken` and `results`, and the end; the workers belong to the thread alone.
    """

    def __init__(self, size: int, seconds: float, memory: int) -> None:
        self.size, self.seconds, self.memory = size, seconds, memory
        self.workers: list[Worker] = []
        self.changed = threading.Condition()
        self.run: Run | None = None
        self.failure: BaseException | None = None
        self.stopped = False
        self.thread: threading.Thread | None = None
        self.owner = os.getpid()
        self.failed_starts = 0
        self.looked = 0.0
        self.dying: list[subprocess.Popen[bytes]] = []
        self.bell, self.rope = socket.socketpair()
        self.rope.setblocking(False)

    def begin(self, run: Run) -> None:
        """Work on a run from now on; an earlier one is given up."""
        with self.changed:
            self._check()
            self.run = run
            self.changed.notify_all()
            if self.thread is None:
                self.thread = threading.Thread(target=self._serve, name="decoding", daemon=True)
                self.thread.start()
        self.wake()

    def take(self, run: Run) -> Any:
        """The next result of a run, as soon as it is there."""
        with self.changed:
            while run.taken not in run.results:
                self._check()
                if self.run is not run:
                    raise RuntimeError("another run of this pool began before this one was read to its end")
                self.changed.wait()
            value = run.results.pop(run.taken)
            held_up = run.started >= run.taken + run.ahead
            run.taken += 1
        if held_up:
            self.wake()
        if isinstance(value, Bug):
            raise value.error
        return value

    def end(self, run: Run) -> None:
        """Give a run up, if it is the one that is worked on."""
        with self.changed:
            if self.run is run:
                self.run = None
        self.wake()

    def stop(self) -> None:
        """End the thread, which ends the workers."""
        if os.getpid() != self.owner:  # a fork of the owner has neither
            return
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        self.wake()
        # the last reference to a pool can fall anywhere, even in this thread
        if self.thread is None:
            self._cut()
        elif self.thread is not threading.current_thread():
            self.thread.join(timeout=5)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.stopped:
            raise RuntimeError("this pool is closed")

    def wake(self) -> None:
        """Wake the thread; a bell that still rings, or hangs no more, needs no other pull."""
        with contextlib.suppress(OSError):
            self.rope.send(b"!")

    def _cut(self) -> None:
        self.bell.close()
        self.rope.close()

    def _serve(self) -> None:
        """The thread."""
        try:
            while not self.stopped:
                run = self.run
                for worker in [w for w in self.workers if w.busy and w.run is not run]:
                    self._dismiss(worker)  # its item belongs to a run that was given up
                if run is not None:
                    self._hire(run)
                    self._feed(run)
                self._listen()
                self._enforce_limits()
        except BaseException as error:  # raised where the results are read
            self.failure = error
        finally:
            for worker in list(self.workers):
                self._dismiss(worker)
            for process in self.dying:
                with contextlib.suppress(subprocess.TimeoutExpired):  # held up in the kernel; killed all the same
                    process.wait(timeout=1)
            with self.changed:
                self.stopped = True
                self.changed.notify_all()
            self._cut()

    def _hire(self, run: Run) -> None:
        busy = sum(worker.busy for worker in self.workers)
        wanted = min(self.size, len(run.items) - run.started + busy)
        while len(self.workers) < wanted:
            try:
                self.workers.append(Worker())
            except OSError as error:
                if self.workers:
                    return  # fewer do the work too
                raise UserError(f"no decoding process can be started here: {error}; 0 workers need none") from error

    def _feed(self, run: Run) -> None:
        """Something to do for each idle worker, as far ahead of the reader as is allowed."""
        for worker in [w for w in self.workers if w.since is None]:
            if run.started == len(run.items):
                return
            try:
                if worker.run is not run:
                    worker.ask(run, None)
                elif run.started < run.taken + run.ahead and (run.ready is None or run.ready(run.started)):
                    worker.ask(run, run.started)
                    run.started += 1
            except OSError:
                self._dismiss(worker)  # it died idle: the item goes to another
                self.wake()

    def _listen(self) -> None:
        """Wait until something happens, or until it is time to look at the limits."""
        self.dying = [process for process in self.dying if process.poll() is None]
        working = self.dying or any(worker.since is not None for worker in self.workers)
        connections = {worker.connection: worker for worker in self.workers}
        for ready in wait([self.bell, *connections], POLL if working else None):
            if ready is self.bell:
                self.bell.recv(4096)
                continue
            worker = connections[ready]  # type: ignore[index]
            try:
                answer = receive(worker.connection)
            except (EOFError, OSError):
                self._bury(worker)
                continue
            self._answered(worker, answer)

    def _answered(self, worker: Worker, answer: list[bytearray]) -> None:
        run, number = worker.run, worker.number
        worker.since = None
        if run is not None and run is self.run:
            self._feed(run)  # first: it works while its answer is read
        value = decode(answer)
        if number is not None:
            self._post(run, number, value)
        elif isinstance(value, Bug):  # the task cannot be imported
            raise value.error
        else:
            self.failed_starts = 0

    def _bury(self, worker: Worker) -> None:
        """A worker ended without having been told to."""
        working, cause = worker.since is not None, worker.cause_of_death()
        self._dismiss(worker)
        if working and worker.number is not None:
            self._post(worker.run, worker.number, cause)
        elif working:
            self._failed_start(cause.detail)

    def _failed_start(self, why: str) -> None:
        self.failed_starts += 1
        if self.failed_starts == START_ATTEMPTS:
            raise UserError(f"no decoding process can be started here: {why}; 0 workers need none")

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        if now - self.looked < POLL:
            return
        self.looked = now
        for worker in [w for w in self.workers if w.since is not None]:
            assert worker.since is not None
            if worker.number is None:
                if now - worker.since > START_SECONDS:
                    self._dismiss(worker)
                    self._failed_start(f"not ready after {START_SECONDS:g} s")
                continue
            # this process may have been held up itself: what is done and only not taken in was in time
            if now - worker.since > self.seconds and not worker.answered():
                lost = Lost(Reason.TIMED_OUT, f"after {self.seconds:g} s")
            elif worker.memory() - worker.idle_memory > self.memory << 20:
                lost = Lost(Reason.OUT_OF_MEMORY, f"over {self.memory} MB")
            else:
                continue
            self._dismiss(worker)
            self._post(worker.run, worker.number, lost)

    def _dismiss(self, worker: Worker) -> None:
        worker.kill()
        self.workers.remove(worker)
        self.dying.append(worker.process)

    def _post(self, run: Run | None, number: int, value: Any) -> None:
        with self.changed:
            if run is not None:
                run.results[number] = value
                if number == run.taken:
                    self.changed.notify_all()
