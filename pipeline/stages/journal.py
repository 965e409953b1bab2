"""What a classification has done so far, kept beside its table: a kill at any moment loses no row.

A file of JSON lines, `.NAME.journal`: first what it is the work of, then a row per input, in their order. A line that a
kill cut short is dropped. It goes when the table is whole. A lock keeps a second run off the same table.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from pipeline.disk import refusal
from pipeline.errors import UserError

FORMAT = 1

Key = dict[str, Any]
"""What decides the rows: names and values that JSON holds."""


class Journal:
    """The rows so far.

    Args:
        path: the file.
        key: of the work.
        file: `path`, opened to read and to append, behind its last whole line.
        done: rows that are there.

    Attributes:
        done: as given, and one more with each row.
    """

    def __init__(self, path: Path, key: Key, file: BinaryIO, done: int) -> None:
        self.path, self.key, self.done = path, key, done
        self._file = file

    def append(self, row: dict[str, Any]) -> None:
        """Keep the next row; it is with the system when this returns, so that the end of this process costs nothing.

        Raises:
            UserError: it cannot be written.
        """
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written {refusal(error)}; then the same command goes on"
            ) from error
        self.done += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, one at a time."""
        with self.path.open("rb") as file:
            file.readline()
            for _ in range(self.done):
                yield json.loads(file.readline())

    def remove(self) -> None:
        """The work is done."""
        self.path.unlink(missing_ok=True)


def inputs_digest(paths: Sequence[str]) -> str:
    """Sha256 (hex) of a list of paths, in their order."""
    found = hashlib.sha256()
    for path in paths:
        found.update(os.fsencode(path) + b"\0")
    return found.hexdigest()


@contextmanager
def opened_journal(out: Path, key: Key, fresh: bool = False) -> Iterator[Journal]:
    """The journal of a table, with what an interrupted run has left in it.

    Args:
        out: the table.
        key: of the work now; rows of other work are not mixed with its own.
        fresh: forget what is there.

    Raises:
        UserError: another run writes this table, what is there is of other work, or nothing can be written here.
    """
    path = out.with_name(f".{out.name}.journal")
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"{out}: another run is writing this table; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(f"{out}: cannot be written {refusal(error)}, or choose another --out") from None
    try:
        done = _begin(path, key, fresh)
        with path.open("ab", buffering=0) as file:
            yield Journal(path, key, file, done)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # held, so whoever opened it before asks again for its name
        lock.release()


def _begin(path: Path, key: Key, fresh: bool) -> int:
    """Make the file ready for the next row; the number of rows that are there."""
    header = json.dumps({"format": FORMAT, **key}, separators=(",", ":"))
    try:
        found = None if fresh else _whole_lines(path)
        if found is None:
            path.write_bytes(header.encode() + b"\n")
            return 0
        before, rows, end = found
        _refuse_other(path, before, {"format": FORMAT, **key})
        os.truncate(path, end)
        return rows
    except OSError as error:
        raise UserError(f"{path}: cannot be written {refusal(error)}") from error


def _whole_lines(path: Path) -> tuple[Key, int, int] | None:
    """First line, number of rows, and bytes up to the end of the last whole one; None where not even the first is."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        before = _parsed(file.readline())
        if before is None:
            return None
        rows, end = 0, file.tell()
        for line in file:
            if _parsed(line) is None:
                break
            rows, end = rows + 1, end + len(line)
    return before, rows, end


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _refuse_other(path: Path, before: Key, now: Key) -> None:
    differing = [name for name in now if before.get(name) != now[name]]
    if not differing:
        return
    name = differing[0]
    what = f"{name} was {before.get(name)}, is {now[name]}"
    if {"files", "inputs"} & set(differing):
        what = f"the files are not the same: {before.get('files')} before, {now.get('files')} now"
    elif name == "model":
        what = f"the model was {str(before.get(name))[:12]}, is {str(now[name])[:12]}"
    raise UserError(
        f"{path} is of an unfinished classification that differs ({what}); "
        "give the same again to go on, --fresh to start over, or another --out"
    )
