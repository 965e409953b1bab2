"""Untrusted files in processes of their own: a decoder that crashes, hangs or eats memory costs one file.

A thread of this process hands out items and takes results in, so that the workers stay busy while the caller
computes. It also starts the workers, which Linux ends together with it. This protects from broken files, not from
malicious ones: a worker may do whatever its user may.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from pipeline.data.crew import Crew, Run
from pipeline.data.worker import Lost, perform

__all__ = ["Lost", "Pool"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pool:
    """Worker processes with a limit of time and of memory per item.

    They start with the first item and end with the pool: by `close`, `with`, the last reference to it, or the end of
    this process, even by SIGKILL. They import what they need themselves: nothing is forked, and the main script is
    not run again.

    Args:
        workers: processes, at most; 0 runs tasks in this process, without any protection, for debugging.
        seconds: longest time for one item.
        memory: most MB that one item may add to its worker.
    """

    def __init__(self, workers: int, seconds: float, memory: int) -> None:
        self.workers = workers
        self._crew = Crew(workers, seconds, memory)
        self._stop = weakref.finalize(self, self._crew.stop)

    def run(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        ahead: int | None = None,
        ready: Callable[[int], bool] | None = None,
    ) -> Generator[Result | Lost, None, None]:
        """`task(item)` for each item, in the order of the items.

        One run at a time: a new one ends an earlier one that was not read to its end. What is in progress when a run
        is given up (closed, or dropped) is killed; nobody waits for it.

        Args:
            task: a function that can be imported by its name, or a `functools.partial` of one; without torch.
            items: whatever pickles.
            ahead: most items that are in progress or finished and not read yet; None: twice the workers.
            ready: of items that are still to come, a sequence then, whether the one at this place is there; whoever
                brings them calls `wake`. Without workers, taking one waits for it.

        Yields:
            The result, or why there is none.

        Raises:
            UserError: no process can be started here.
            RuntimeError: another run of this pool began, or the pool was closed.
            Exception: any other that the task raised is a bug; it has the worker's traceback as a note.
        """
        if self.workers == 0:
            for item in items:
                yield perform(task, item)
            return
        run = Run(task, _sequence(items, ready), ahead or 2 * self.workers, ready)
        if not run.items:
            return
        self._crew.begin(run)
        try:
            for _ in range(len(run.items)):
                yield self._crew.take(run)
        finally:
            self._crew.end(run)

    def wake(self) -> None:
        """Say that an item is there that was still to come."""
        self._crew.wake()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are there now."""
        return [worker.process.pid for worker in list(self._crew.workers)]

    def close(self) -> None:
        """End the workers now."""
        self._stop()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sequence(items: Iterable[Any], ready: Callable[[int], bool] | None) -> Sequence[Any]:
    """Items that are still to come are taken one at a time, as they are there."""
    return items if ready is not None and isinstance(items, Sequence) else list(items)
