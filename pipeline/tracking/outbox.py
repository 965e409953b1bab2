"""What is recorded waits on disk until the store has it: a journal of JSON lines, in order, beside the files it names.

A kill at any moment leaves whole lines and perhaps half a last one, which is skipped: whoever wrote it goes on from a
state of its own and says it again. No MLflow here: `delivery.py` knows what the entries mean.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.disk import refusal, replacing, sync
from pipeline.errors import TrackingError

NAME = "outbox"
"""In a run's folder: its outbox, gone when the store has everything."""
ELSEWHERE = Path("runs") / ".outbox"
"""Of runs without a folder, below the current one."""
JOURNAL = "journal.jsonl"
FILES = "files"
LARGE = 1 << 20
"""Bytes from which a file is linked, not copied. Small ones may be rewritten in place while they wait."""
SHRINK = 4 << 20
"""Bytes from which a journal of sent entries is begun anew: a long training records millions of them."""
CLAIM_SECONDS = 60.0
"""Longest wait for another process that is sending, such as `video-lstm sync`."""

Entry = dict[str, Any]
"""`n` counts from 1, `do` says what it is, the rest belongs to it."""


class Outbox:
    """One run's entries; the process that has made one is alone with them until `release`.

    Lines of the journal: `{"about": {...}}`, facts about the run, the later counts; `{"n": 3, "do": ...}`, an entry;
    `{"sent": 3}`, the store has it and all before it.

    Args:
        folder: made if needed.
        seconds: how long to wait for another process that is at work here.

    Attributes:
        about: uri (without password), experiment, key, run_id, time (seconds since 1970).
        last: number of the newest entry.
        sent: number of the last one that the store has.

    Raises:
        TrackingError: another process is at work here, or the folder cannot be written.
    """

    def __init__(self, folder: Path, seconds: float = CLAIM_SECONDS) -> None:
        self.folder = folder.absolute()
        self.about: dict[str, Any] = {}
        self.last = self.sent = 0
        self._offset = 0
        """Of the journal; nothing before it waits."""
        self._ends: dict[int, int] = {}
        self._unwritten = b""
        self._mutex = threading.RLock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / ".lock", timeout=seconds, thread_local=False)
            self._lock.acquire()
            self._file = self._open()
            self._read()
        except Timeout:
            raise TrackingError(f"{folder}: another process is sending what waits there; try again later") from None
        except OSError as error:
            raise TrackingError(f"{folder}: cannot be written {refusal(error)}") from error

    @property
    def waiting(self) -> int:
        """Entries that the store does not have yet."""
        return self.last - self.sent

    def note(self, **facts: Any) -> None:
        """Keep facts about the run.

        Raises:
            TrackingError: see `append`.
        """
        with self._mutex:
            self.about |= facts
            self._write({"about": facts})

    def append(self, do: str, **what: Any) -> None:
        """Keep an entry; it survives the end of this process, and after `settle` a power cut.

        Raises:
            TrackingError: the disk refuses. The entry is kept in memory and written with the next one.
        """
        with self._mutex:
            self.last += 1
            self._write({"n": self.last, "do": do, **what})

    def append_file(self, source: Path | str, name: str, place: str | None, do: str = "file") -> None:
        """Keep a file as it is now.

        Args:
            source: the file, or the text of one.
            name: of the file.
            place: folder among the run's artifacts; None: at the top.
            do: what the entry says it is.

        Raises:
            TrackingError: the file cannot be read, or see `append`.
        """
        with self._mutex:
            target = self.folder / FILES / str(self.last + 1) / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(source, str):
                    target.write_text(source, encoding="utf-8")
                else:
                    _take(source, target)
            except OSError as error:
                shutil.rmtree(target.parent, ignore_errors=True)
                raise TrackingError(f"{source if isinstance(source, Path) else name}: {refusal(error)}") from error
            self.append(do, name=name, place=place)

    def path(self, entry: Entry) -> Path:
        """Where the file of an entry lies."""
        return self.folder / FILES / str(entry["n"]) / str(entry["name"])

    def front(self, limit: int) -> list[Entry]:
        """The oldest entries that wait, in order, at most `limit`.

        Raises:
            OSError: somebody removed the journal.
        """
        found: list[Entry] = []
        self._ends = {}
        for line, end in _lines(self.folder / JOURNAL, self._offset):
            if line.get("n", 0) > self.sent:
                found.append(line)
                self._ends[line["n"]] = end
            if len(found) == limit:
                break
        return found

    def mark(self, number: int) -> None:
        """The store has this entry, one of the last `front`, and all before it."""
        for done in range(self.sent + 1, number + 1):
            if (self.folder / FILES / str(done)).exists():
                shutil.rmtree(self.folder / FILES / str(done), ignore_errors=True)
        with self._mutex:
            self.sent, self._offset = number, self._ends[number]
            with suppress(TrackingError):  # it would be sent once more, which changes nothing
                self._write({"sent": number})
            if not self.waiting and self._offset > SHRINK:
                self._shrink()

    def skip(self) -> None:
        """Give up the first entry of the last `front`."""
        self.mark(min(self._ends))

    def settle(self) -> None:
        """Put all that waits on the disk, power cut or not."""
        with self._mutex, suppress(OSError):
            os.fsync(self._file)
            for path in (self.folder / FILES).rglob("*"):
                sync(path)

    def release(self, remove: bool = False) -> None:
        """Let others send what waits here, or remove it all because nothing does."""
        with self._mutex:
            os.close(self._file)
            self._file = -1
            if remove:
                shutil.rmtree(self.folder, ignore_errors=True)
                with suppress(OSError):  # another run's outbox may lie beside it
                    self.folder.parent.rmdir()
                    if self.folder.parent.name == ELSEWHERE.name:
                        self.folder.parent.parent.rmdir()
            self._lock.release()

    def _open(self) -> int:
        return os.open(self.folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def _read(self) -> None:
        """What an earlier process left, but for half a line at the end."""
        whole = 0
        for line, whole in _lines(self.folder / JOURNAL, 0):  # noqa: B007
            self.about |= line.get("about", {})
            self.sent = max(self.sent, line.get("sent", 0))
            self.last = max(self.last, line.get("n", 0), self.sent)
        os.ftruncate(self._file, whole)

    def _write(self, line: dict[str, Any]) -> None:
        self._unwritten += json.dumps(line).encode() + b"\n"
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._file, self._unwritten) :]
        except OSError as error:
            raise TrackingError(f"{self.folder}: cannot be written {refusal(error)}") from error

    def _shrink(self) -> None:
        with suppress(OSError):
            with replacing(self.folder / JOURNAL) as path:
                path.write_text(f"{json.dumps({'about': self.about})}\n{json.dumps({'sent': self.sent})}\n")
            os.close(self._file)
            self._file, self._offset = self._open(), 0


def found_in(folder: Path) -> list[Path]:
    """The outboxes in a folder and all below it, in the order in which their runs began."""
    found = [path.parent for path in folder.rglob(JOURNAL)]
    return sorted(found, key=lambda path: (glance(path)[0].get("time", 0.0), path))


def glance(folder: Path) -> tuple[dict[str, Any], int]:
    """What an outbox knows of its run, and how many entries wait there; it may be in use."""
    known: dict[str, Any] = {}
    last = sent = 0
    with suppress(OSError):
        for line, _ in _lines(folder / JOURNAL, 0):
            known |= line.get("about", {})
            last, sent = max(last, line.get("n", 0)), max(sent, line.get("sent", 0))
    return known, max(0, last - sent)


def place_of(folder: Path, key: str, run_id: str | None) -> Path:
    """Where a run's outbox is below `folder`, or where a new one goes.

    Args:
        folder: of the outboxes of one run's folder: one started over may have left something.
        key: names the run, see `runs.KEY`.
        run_id: of the run, where it is known.
    """
    for path in sorted(folder.glob(f"*/{JOURNAL}")):
        known, _ = glance(path.parent)
        if known.get("key") == key or (run_id and known.get("run_id") == run_id):
            return path.parent
    return folder / key


def _lines(journal: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole lines of a journal from there, each with the place of its end."""
    with journal.open("rb") as file:
        file.seek(offset)
        for text in file:
            if not text.endswith(b"\n"):
                return
            offset += len(text)
            with suppress(ValueError):  # damaged by the disk
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line, offset


def _take(source: Path, target: Path) -> None:
    """A file of its own with what `source` holds now. Large files are replaced, not rewritten, in this project."""
    if source.stat().st_size >= LARGE:
        with suppress(OSError):  # another file system
            os.link(source, target)
            return
    shutil.copyfile(source, target)
