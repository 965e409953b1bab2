"""Where a server keeps the file of a request while it is read: a folder of its own, for its user alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

from pipeline.addresses import plain_suffix
from pipeline.video.images import sniffed_suffix

PREFIX = "video-lstm-serve-"


class Scratch:
    """The folder; it goes with its owner: by `close`, the last reference, or the end of the process. What a killed
    process left is removed by the next one that starts.
    """

    def __init__(self) -> None:
        _remove_left()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def file(self, content: bytes | Callable[[BinaryIO], None], name: str) -> Iterator[str]:
        """A file with this content, or with what the function writes, that is gone afterwards.

        Of `name` it has the suffix alone. Where there is none, an image gets that of its kind: images are recognised by
        their names.
        """
        handle, place = tempfile.mkstemp(dir=self.folder)
        path = Path(place)
        try:
            with os.fdopen(handle, "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
            path = path.rename(place + (plain_suffix(name) or _sniffed(path)))
            yield str(path)
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove it now."""
        self._remove()


def _sniffed(path: Path) -> str:
    with path.open("rb") as file:
        return sniffed_suffix(file.read(16))


def _remove_left() -> None:
    """Folders of processes that are not there any more, of this user."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if owner.isdecimal() and not psutil.pid_exists(int(owner)) and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
