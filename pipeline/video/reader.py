"""Frames out of files: what a file really holds, and the frames one wants of it, with their timestamps.

A source is a video file, an animation, a still image (a clip of one frame) or a folder of images. What a
container claims about itself is not believed: frames are counted by decoding, times come from the stream.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video.animation import open_animation
from pipeline.video.av_reader import installed, open_av
from pipeline.video.capture import INTRA, can_be_named, open_capture, unsupported
from pipeline.video.containers import read_structure
from pipeline.video.display import resize
from pipeline.video.images import (
    IMAGE_FOLDER_FPS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Images,
    is_image_folder,
    suffix,
)
from pipeline.video.thumbnails import Thumbnails, thumbnail

__all__ = [
    "DECODER",
    "IMAGE_FOLDER_FPS",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "VideoInfo",
    "is_image_folder",
    "probe",
    "read_frames",
]

DECODER = f"opencv {cv2.__version__}" + (f", av {installed()}" if installed() else "")
"""What decodes here; results of `probe` hold for these versions."""

FAR = 300
"""Frames to skip from which on seeking pays: it decodes from the key frame before, often some hundred frames."""

FAR_INTRA = 48
"""The same where every frame is a key frame: OpenCV still decodes 16 frames ahead."""

SAME_TIME = 1e-6
"""Seconds by which a frame's time may differ from what `probe` found."""


@dataclass(frozen=True)
class Clip:
    """Frames with their moments.

    Attributes:
        frames: uint8 (T, H, W, 3) RGB, T >= 1.
        times: float64 (T,) seconds from the file's timestamps, strictly increasing.
        source: path of the file or folder, as the user named it.

    Raises:
        ValueError: a shape or dtype that does not fit, or times that do not increase.
    """

    frames: np.ndarray
    times: np.ndarray
    source: str

    def __post_init__(self) -> None:
        frames, times = self.frames, self.times
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must be uint8 (T, H, W, 3), not {frames.dtype} {frames.shape}")
        if times.dtype != np.float64 or times.shape != frames.shape[:1]:
            raise ValueError(f"times must be float64 ({len(frames)},), not {times.dtype} {times.shape}")
        if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ValueError("times must be finite and strictly increasing")


@dataclass(frozen=True)
class VideoInfo:
    """What a source really holds.

    Attributes:
        times: float64 (N,) timestamps in seconds of every frame that was decoded, strictly increasing.
        width, height: pixels of the first frame, after the rotation the file asks for.
        codec: four-character code of the stream, or "image".
        marks: what is unusual about a healthy source, in a word or two each; "rotated", "hdr", ...
        damage: empty where the source is whole; else what is missing, "64 of 120 frames decoded, ..."
        thumbnails: uint8 (K, 64, 64) grey, one per 0.25 s (a longer source: per 0.5 s, 1 s, ... so that
            K <= 512), the first frame's first; (0, 64, 64) unless asked for.
    """

    times: np.ndarray
    width: int
    height: int
    codec: str
    marks: tuple[str, ...] = ()
    damage: str = ""
    thumbnails: np.ndarray = field(default_factory=lambda: np.empty((0, 64, 64), np.uint8))

    @property
    def frames(self) -> int:
        """Frames decoded."""
        return len(self.times)

    @property
    def step(self) -> float:
        """Median seconds from one frame to the next; 0.0 for a single frame."""
        return float(np.median(np.diff(self.times))) if self.frames > 1 else 0.0

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last (one median step long); 0.0 for one frame."""
        return float(self.times[-1] - self.times[0]) + self.step

    @property
    def fps(self) -> float:
        """Frames per second by the median step; 0.0 for a single frame."""
        return 1.0 / self.step if self.frames > 1 else 0.0


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


def probe(path: str, *, megapixels: float = math.inf, thumbnails: bool = False) -> VideoInfo:
    """Decode a whole source once and say what it holds.

    Args:
        path: a video file, an animation, an image, or a folder of images.
        megapixels: largest frame in millions of pixels; a larger one is refused before it is decoded.
        thumbnails: take the thumbnails of `VideoInfo` on the way.

    Raises:
        VideoError: the source gives no frame, or changes while it is read; its reason says why. One that is
            damaged but gives a frame is no error: see `VideoInfo.damage`.
    """
    path = os.fspath(path)
    with _unchanged(path), _open(path, megapixels) as (source, damage):
        times, sizes, small = _walk(source, thumbnails)
        if not sizes:
            raise VideoError(path, Reason.NO_FRAME_DECODED, f"codec {source.codec}, its frames do not convert")
        if damage or source.goes_on():
            of = f" of {source.claimed}" if source.claimed > len(times) else ""
            damage = f"{len(times)}{of} frames decoded, {damage or 'the next one is damaged'}"
        marks = _marks(source, times, sizes)
    width, height = sizes[0]
    return VideoInfo(times, width, height, source.codec, marks, damage, small)


def _walk(source: Source, thumbnails: bool) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray]:
    """Times of all frames, the sizes that were seen (width, height), and the thumbnails."""
    times: list[float] = []
    sizes: list[tuple[int, int]] = []
    seen = Thumbnails()
    while True:
        times.append(source.time)
        wanted = seen.wants(source.time)
        # A file's frames are decoded by going on; a folder's images, which may each be damaged, are not.
        if wanted or isinstance(source, Images):
            frame = source.picture()
            if frame is not None and wanted:
                size = frame.shape[1], frame.shape[0]
                if size not in sizes:
                    sizes.append(size)
                seen.add(source.time, thumbnail(frame) if thumbnails else None)
        if not source.advance():
            return np.array(times, dtype=np.float64), sizes, seen.array()


def _marks(source: Source, times: np.ndarray, sizes: list[tuple[int, int]]) -> tuple[str, ...]:
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    # Timestamps in whole milliseconds make steps of 33 and 34; that is no variable rate.
    odd = np.abs(steps - usual) > 0.002 + 0.1 * usual
    marks = source.marks
    if len(steps) and odd.mean() > 0.05:
        marks += ("variable frame rate",)
    if len(sizes) > 1:
        marks += ("size changes",)
    if source.repaired > 1:
        marks += ("repaired times",)
    return marks


def read_frames(path: str, indices: np.ndarray, times: np.ndarray | None = None) -> Clip:
    """Chosen frames of a source; decoding stops after the last of them.

    Args:
        path: a video file, an animation, an image, or a folder of images.
        indices: int64 (T,) positions among the frames that `probe` counted; sorted, unique, at least one.
        times: float64 (T,) the timestamps that `probe` found for these frames. With them the file is checked
            to be the one that was probed, and frames far ahead are reached by seeking: the frame that is found
            is the one with this very timestamp, or the file is read through.

    Returns:
        The frames, RGB. Should the size change in mid-stream, all have that of the first wanted frame
        (folder of images: of the folder's first image).

    Raises:
        VideoError: the source does not open, ends before the last index, has other times than `times`, or
            changes while it is read.
        ValueError: indices that are empty, negative or not increasing; times that do not fit them.
    """
    path, wanted = os.fspath(path), np.asarray(indices)
    if wanted.ndim != 1 or wanted.size == 0 or wanted[0] < 0 or (np.diff(wanted) <= 0).any():
        raise ValueError("indices must be a non-empty, increasing list of frame numbers")
    if times is not None and np.shape(times) != wanted.shape:
        raise ValueError(f"times must be one per index, not {np.shape(times)} for {wanted.shape}")
    positions = [int(index) for index in wanted]
    with _unchanged(path):
        clip = None
        if times is not None:
            clip = _collect(path, positions, [float(time) for time in times], seeking=True)
        if clip is None:
            known = None if times is None else [float(time) for time in times]
            clip = _collect(path, positions, known, seeking=False)
    assert clip is not None
    return clip


def _collect(path: str, positions: list[int], times: list[float] | None, seeking: bool) -> Clip | None:
    """The frames at these positions; None where seeking did not work, so that the file must be read through."""
    found: list[float] = []
    with _open(path) as (source, _):
        frames = _canvas(source, len(positions)) if isinstance(source, Images) else None
        far = FAR_INTRA if source.codec.lower() in INTRA else FAR
        index = 0
        for number, position in enumerate(positions):
            if seeking and times and source.seekable and position - index >= far:
                if not source.seek(times[number]):
                    return None
                index = position
            while index < position:
                if not source.advance():
                    detail = f"ended after {index + 1} frames; the file changed?"
                    raise VideoError(path, Reason.NO_FRAME_DECODED, detail)
                index += 1
            if times and abs(source.time - times[number]) > SAME_TIME:
                detail = f"frame {position} is at {source.time:.6f} s and not {times[number]:.6f}; the file changed?"
                raise VideoError(path, Reason.NOT_READABLE, detail)
            frame = source.picture()
            if frame is None:
                raise VideoError(path, Reason.NO_FRAME_DECODED, f"frame {position} does not decode")
            if frames is None:
                frames = np.empty((len(positions), *frame.shape), dtype=np.uint8)
            frame = resize(frame, frames.shape[2], frames.shape[1])
            cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frames[number])
            found.append(source.time)
    assert frames is not None
    return Clip(frames, np.asarray(found, dtype=np.float64), path)


def _canvas(source: Images, count: int) -> np.ndarray:
    """Room for the frames of a folder, all at the size of its first image."""
    return np.empty((count, *source.picture().shape), dtype=np.uint8)


@contextmanager
def _open(path: str, megapixels: float = math.inf) -> Iterator[tuple[Source, str]]:
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
        raise VideoError(path, Reason.NOT_READABLE, error.strerror or "") from error
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
def _unchanged(path: str) -> Iterator[None]:
    """Refuse what was read while the file changed: it may be a frame of neither version.

    Raises:
        VideoError: NOT_FOUND where the file vanished, NOT_READABLE where it changed.
    """
    before = _state(path)
    try:
        yield
    except VideoError as error:
        if can_be_named(path):
            raise
        # Tables and terminals take UTF-8 alone.
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise VideoError(shown, error.reason, error.detail) from error
    after = _state(path)
    if before is not None and before != after:
        if after is None:
            raise VideoError(path, Reason.NOT_FOUND, "it vanished while it was read")
        raise VideoError(path, Reason.NOT_READABLE, "it changed while it was read")


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
            empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise VideoError(path, Reason.NOT_FOUND) from error
    except OSError as error:
        raise VideoError(path, Reason.NOT_READABLE, error.strerror or "") from error
    if empty:
        raise VideoError(path, Reason.EMPTY)
