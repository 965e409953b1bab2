"""Files from elsewhere as local ones: fetched ahead by threads, read in order, deleted when read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.addresses import is_address
from pipeline.config.fetch import FetchConfig
from pipeline.data.pool import Lost, Pool
from pipeline.data.remote.part import unwritable
from pipeline.data.remote.room import Folder, Room, Stopped
from pipeline.data.remote.transfer import check_scheme, fetch_file
from pipeline.errors import VideoError

AHEAD = 4
"""Files that are there or on their way, for each thread, small as they may be."""

Result = TypeVar("Result")
Local = str | VideoError
"""A path of this machine, or why there is none."""


class Fetcher(Sequence[Local]):
    """Local paths in the order of the addresses; taking one that is still on its way waits for it.

    Args:
        paths: addresses, and paths of this machine, which are passed on.
        config: what fetching may cost.
        wake: called by a thread whenever a file is there.

    Raises:
        ConfigError: a kind of address for which a package is missing.
        UserError: nothing can be written into the cache folder.
    """

    def __init__(self, paths: Sequence[str], config: FetchConfig, wake: Callable[[], None] = lambda: None) -> None:
        check_schemes(paths)
        self._paths, self._config, self._wake = paths, config, wake
        self._tickets = {index: n for n, index in enumerate(i for i, path in enumerate(paths) if is_address(path))}
        self._queue = iter(self._tickets.items())
        self._room, self._folder = Room(int(config.cache * 1e6)), Folder()
        self._there: dict[int, Local] = {}
        self._read = 0
        self._failure: BaseException | None = None
        self._changed, self._stop = threading.Condition(), threading.Event()
        for number in range(min(config.threads, len(self._tickets))):
            threading.Thread(target=self._serve, name=f"fetching {number}", daemon=True).start()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Local:  # type: ignore[override]
        if not 0 <= index < len(self._paths):
            raise IndexError(index)
        if index not in self._tickets:
            return self._paths[index]
        with self._changed:
            while index not in self._there:
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()
            return self._there[index]

    def ready(self, index: int) -> bool:
        """Whether taking a file does not wait."""
        return index not in self._tickets or index in self._there or self._failure is not None

    def release(self, index: int) -> None:
        """A file has been read; each one must be, in order."""
        if index not in self._tickets:
            return
        with self._changed:
            found = self._there.pop(index)
            self._read += 1
            self._changed.notify_all()
        if isinstance(found, str):
            Path(found).unlink(missing_ok=True)
        self._room.release(self._tickets[index])

    def close(self) -> None:
        """End the threads, remove the folder. A thread that waits for a server ends when that answers, or not."""
        self._stop.set()
        self._room.stop()
        with self._changed:
            self._changed.notify_all()
        self._folder.close()

    def _serve(self) -> None:
        """A thread."""
        try:
            while (found := self._next()) is not None:
                index, ticket = found
                local = self._fetch(index, ticket)
                with self._changed:
                    self._there[index] = local
                    self._changed.notify_all()
                self._wake()
        except Stopped:
            return
        except BaseException as error:
            if self._stop.is_set():
                return  # its folder was removed under it
            with self._changed:  # raised where the files are read
                self._failure = unwritable(error) if isinstance(error, OSError) else error
                self._changed.notify_all()
            self._wake()

    def _next(self) -> tuple[int, int] | None:
        """The next file to fetch and its place in the order; None after the last."""
        with self._changed:
            found = next(self._queue, None)
            while found is not None and found[1] >= self._read + AHEAD * self._config.threads:
                if self._stop.is_set():
                    return None
                self._changed.wait()
            return None if self._stop.is_set() else found

    def _fetch(self, index: int, ticket: int) -> Local:
        place = self._folder.path / str(ticket)
        try:
            return str(fetch_file(self._paths[index], place, self._room, ticket, self._config, self._stop))
        except VideoError as error:
            place.unlink(missing_ok=True)
            self._room.settle(ticket, 0)
            return error


def check_schemes(paths: Iterable[str]) -> None:
    """That all addresses among paths can be fetched here, see `check_scheme`."""
    seen = set()
    for path in paths:
        if is_address(path) and (start := path.partition("://")[0]) not in seen:
            seen.add(start)
            check_scheme(path)


def run_fetched(
    pool: Pool, task: Callable[[str], Result], paths: Sequence[str], config: FetchConfig
) -> Generator[Result | Lost, None, None]:
    """As `pool.run(task, paths)`, for paths that may lie elsewhere: they are fetched ahead, and deleted when read."""
    with closing(Fetcher(paths, config, pool.wake)) as fetcher:
        items: Any = fetcher
        with closing(pool.run(partial(_with_local, task), items, ready=fetcher.ready)) as results:
            for index, result in enumerate(results):
                fetcher.release(index)
                yield result


def _with_local(task: Callable[[str], Result], local: Local) -> Result:
    """In a worker."""
    if isinstance(local, VideoError):
        raise local
    return task(local)
