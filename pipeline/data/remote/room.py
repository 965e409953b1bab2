"""Where fetched files lie until they are read: a folder of bounded size, which nothing survives."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.config.folders import cache_dir
from pipeline.disk import refusal
from pipeline.errors import Reason, UserError, VideoError

LOCK = ".lock"


class Stopped(Exception):  # noqa: N818 - no error
    """The reader has gone; nobody wants this file any more."""


class Room:
    """Bytes on the disk, given out in the order of the files: the one that is read next never waits for later ones.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held: dict[int, int] = {}
        self._turn = 0
        self._gone: set[int] = set()
        self._changed = threading.Condition()
        self._stopped = False

    def take(self, ticket: int, size: int | None, seconds: float | None = None) -> bool:
        """Room for a file, once all before it have theirs. Returns whether it has it.

        Args:
            ticket: the file's place in the order, from 0 without a gap.
            size: its bytes; None: nobody knows, and it has the whole room to itself until they are known.
            seconds: longest to wait; None: as long as it takes.

        Raises:
            VideoError: it is larger than all there is; without its path.
            Stopped: the reader has gone.
        """
        if size is not None and size > self.limit:
            detail = f"{size / 1e6:.1f} MB; fetch.cache is {self.limit / 1e6:g} MB"
            raise VideoError("", Reason.TOO_LARGE, detail)
        wanted = self.limit if size is None else size
        with self._changed:
            there = self._changed.wait_for(
                lambda: self._stopped or (self._turn == ticket and self.used + wanted <= self.limit), seconds
            )
            if self._stopped:
                raise Stopped
            if not there:
                return False
            self.used += wanted
            self._held[ticket] = wanted
            self._pass(ticket)
            return True

    def settle(self, ticket: int, size: int) -> None:
        """A file is there, or will never be: it keeps `size` bytes."""
        with self._changed:
            self.used -= self._held.get(ticket, 0) - size
            self._held[ticket] = size
            self._pass(ticket)

    def release(self, ticket: int) -> None:
        """A file is gone."""
        with self._changed:
            self.used -= self._held.pop(ticket, 0)
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody shall wait any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _pass(self, ticket: int) -> None:
        if ticket >= self._turn:
            self._gone.add(ticket)
        while self._turn in self._gone:
            self._gone.remove(self._turn)
            self._turn += 1
        self._changed.notify_all()


class Folder:
    """A folder of this process alone, below the cache folder. What killed processes left beside it goes first.

    It is held by a lock, not by a process id: another machine or container may share the cache folder.

    Raises:
        UserError: it cannot be made.
    """

    def __init__(self) -> None:
        parent = Path(cache_dir()) / "fetched"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with FileLock(parent / LOCK):  # a folder without its lock yet is not taken for one that was left
                _remove_left(parent)
                self.path = Path(tempfile.mkdtemp(dir=parent))
                self._lock = FileLock(self.path / LOCK, timeout=0)
                self._lock.acquire()
        except OSError as error:
            raise UserError(f"{parent}: cannot be written {refusal(error)}; VIDEO_LSTM_CACHE names another") from None

    def close(self) -> None:
        """Remove it; a file that a thread is still writing goes with its handle."""
        until = time.monotonic() + 2.0
        while self.path.exists() and time.monotonic() < until:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def _remove_left(parent: Path) -> None:
    for folder in parent.iterdir():
        if not folder.is_dir():
            continue
        with contextlib.suppress(Timeout, OSError), FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
