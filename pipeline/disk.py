"""Writing so that a kill, a power cut or a full disk leaves the old file or the new one, and nothing in between."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


def sync(path: Path) -> None:
    """Ask the system to put a file's or folder's content on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_foreign(folder: Path, known: Collection[str], what: str, error: type[Exception]) -> None:
    """Replacing a folder deletes what is in it: raises `error` unless all that is not hidden is known."""
    if folder.exists() and not folder.is_dir():
        raise error(f"{folder} is a file; {what} is a folder")
    for item in sorted(folder.iterdir()) if folder.exists() else ():
        if item.name not in known and not item.name.startswith("."):
            raise error(f"{folder} holds {item.name}, no part of {what}; choose another folder")


@contextmanager
def replacing(path: Path, former: Path | None = None) -> Iterator[Path]:
    """A file beside `path` to be filled in the block; then it is on the disk and takes its place in one step.

    Where the block or the disk fails, `path` is as it was and nothing is left beside it. What a killed process left
    there is written over the next time.

    Args:
        path: the place.
        former: where the file goes that is there now; None: it is replaced.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        sync(temporary)
        if former is not None and path.exists():
            path.replace(former)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def no_room(error: OSError) -> bool:
    """Whether a write failed because a limit is reached, not because of what was written or where."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refusal(error: Exception) -> str:
    """Why the system refused to write, and what mends it: "(No space left on device); make room there".

    Args:
        error: an OSError, or one of safetensors, which names the system's error number in its text.
    """
    named = re.search(r"os error (\d+)", str(error))
    number = int(named[1]) if named else getattr(error, "errno", None)
    if number is None:
        return f"({error})"
    remedy = _REMEDIES.get(number)
    return f"({os.strerror(number)})" + (f"; {remedy}" if remedy else "")
