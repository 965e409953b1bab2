"""Opening a source, whatever it is, at its first frame: video by OpenCV or PyAV, animations, images, folders."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video.animation import open_animation
from pipeline.video.av_reader import installed, open_av
from pipeline.video.capture import open_capture, unsupported
from pipeline.video.containers import read_structure
from pipeline.video.images import IMAGE_SUFFIXES, Images, suffix

PLAYLIST = b"#EXTM3U"
"""How an HLS playlist begins. FFmpeg would open the files it names: whoever sends one to a server, or puts one into an
archive, could have any file that the decoding process may read shown as his own."""


class Source(Protocol):
    """A source at one of its frames: the first, when it is opened."""

    codec: str
    marks: tuple[str, ...]
    seekable: bool
    claimed: int

    @property
    def time(self) -> float:
        """Seconds of the current frame."""

    @property
    def repaired(self) -> int:
        """Frames so far that have no time of their own."""

    def advance(self) -> bool:
        """Go to the next frame; False at the end, or where it does not decode."""

    def picture(self) -> np.ndarray | None:
        """The current frame, BGR uint8 (H, W, 3), valid until the next call; None if it fails."""

    def goes_on(self) -> bool:
        """After the end: whether it was damage that ended the reading."""

    def seek(self, time: float) -> bool:
        """Go to the frame with exactly this time; False where that cannot be shown to have worked."""


@contextmanager
def open_source(path: str, megapixels: float = math.inf) -> Iterator[tuple[Source, str]]:
    """Any source at its first frame, and what is wrong with its structure.

    OpenCV reads what it can. Of interlaced pictures it hands out the memory it happened to find (see
    `bitstream`), so they go to PyAV with what it cannot decode.
    """
    _check(path)
    if os.path.isdir(path):
        yield Images(path, megapixels), ""
        return
    animation = open_animation(path, megapixels)
    if animation is not None or suffix(path) in IMAGE_SUFFIXES:
        yield animation or Images(path, megapixels), ""
        return
    try:
        structure = read_structure(path)
    except OSError as error:
        reason = Reason.NOT_FOUND if isinstance(error, FileNotFoundError) else Reason.NOT_READABLE
        raise VideoError(path, reason, error.strerror or "") from error
    refused = unsupported(path, "interlaced video") if "interlaced" in structure.marks else None
    if refused is None:
        opened = False
        try:
            with open_capture(path, structure, megapixels) as source:
                opened = True
                yield source, structure.damage
                return
        except VideoError as error:
            if opened or error.reason is not Reason.UNSUPPORTED_CODEC:
                raise
            refused = error
    if not installed():
        raise refused
    with open_av(path, structure, megapixels) as fallback:
        yield fallback, structure.damage


@contextmanager
def unchanged(path: str) -> Iterator[None]:
    """Refuse what was read while the file changed: it may be a frame of neither version.

    Raises:
        VideoError: NOT_FOUND where the file vanished, NOT_READABLE where it changed; else what was raised
            inside, with a name that tables and terminals can show.
    """
    before = _state(path)
    failure = None
    try:
        yield
    except VideoError as error:
        failure = error
    after = _state(path)
    if before is not None and before != after:
        reason = Reason.NOT_FOUND if after is None else Reason.NOT_READABLE
        what = "vanished" if after is None else "changed"
        failure = VideoError(path, reason, f"it {what} while it was read")
    if failure is not None:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise VideoError(shown, failure.reason, failure.detail) from failure


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check(path: str) -> None:
    """Raise VideoError for what can be known before decoding: missing, unreadable, empty, not a file."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return
        if not stat.S_ISREG(mode):
            raise VideoError(path, Reason.NOT_A_VIDEO, "not a regular file")
        with open(path, "rb") as file:
            head = file.read(16)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise VideoError(path, Reason.NOT_FOUND) from error
    except OSError as error:
        raise VideoError(path, Reason.NOT_READABLE, error.strerror or "") from error
    if not head:
        raise VideoError(path, Reason.EMPTY)
    if head.startswith(PLAYLIST):
        raise VideoError(path, Reason.NOT_A_VIDEO, "a playlist, which names other files")
