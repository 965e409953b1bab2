"""The same pass over a video file by PyAV, for what OpenCV does not decode: AV1, interlaced pictures."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video import decoder_threads
from pipeline.video.capture import does_not_open, plain_name
from pipeline.video.containers import Structure
from pipeline.video.display import STRAIGHT, Matrix, is_mirrored, resize, square_size, too_large, turn
from pipeline.video.times import Clock

_TURNS: dict[int, Matrix] = {0: STRAIGHT, 90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}
"""By the degrees, against the clock, that a frame is to be turned."""


def installed() -> str:
    """PyAV's version; empty where it is not installed."""
    return version("av") if importlib.util.find_spec("av") else ""


class AvCapture:
    """An opened file whose first frame is decoded; like `capture.Capture`, but it cannot seek."""

    seekable = False

    def __init__(self, container: Any, structure: Structure) -> None:
        """Args: container: of PyAV, with a video stream.

        Raises:
            av.FFmpegError, StopIteration: the first frame does not decode, or there is none.
        """
        stream = container.streams.video[0]
        stream.codec_context.thread_count = decoder_threads()
        self._frames = container.decode(stream)
        self._frame = next(self._frames)
        self._broken = False
        self.codec = (stream.codec_context.codec_tag or "").strip("\0 ") or stream.codec_context.name
        self.codec = self.codec if self.codec.isprintable() else stream.codec_context.name
        self.claimed = int(stream.frames)
        self._clock = Clock(float(stream.average_rate or 0))
        self.time = self._clock.tick(self._stream_time())
        self._aspect = float(stream.sample_aspect_ratio or 1)
        turned = _TURNS.get(round(self._frame.rotation) % 360, STRAIGHT)
        self._matrix = structure.matrix if is_mirrored(structure.matrix) else turned
        size = int(self._frame.width), int(self._frame.height)
        self.marks = structure.marks + ("rotated",) * (self._matrix != STRAIGHT)
        self.marks += ("non-square pixels",) * (square_size(*size, self._aspect, False) != size)
        if self._frame.interlaced_frame and "interlaced" not in self.marks:
            self.marks += ("interlaced",)

    def _stream_time(self) -> float:
        return math.nan if self._frame.time is None else float(self._frame.time)

    def advance(self) -> bool:
        """Decode the next frame; False at the end, or where a packet does not decode."""
        from av.error import FFmpegError

        try:
            self._frame = next(self._frames)
        except StopIteration:
            return False
        except FFmpegError:
            self._broken = True
            return False
        self.time = self._clock.tick(self._stream_time())
        return True

    def picture(self) -> np.ndarray | None:
        """The current frame as shown, BGR uint8 (H, W, 3)."""
        frame = turn(self._frame.to_ndarray(format="bgr24"), self._matrix)
        height, width = frame.shape[:2]
        return resize(frame, *square_size(width, height, self._aspect, self._matrix[0] == 0))

    @property
    def repaired(self) -> int:
        """Frames that were given a time."""
        return self._clock.repaired

    def goes_on(self) -> bool:
        """Whether it was damage that ended the reading."""
        return self._broken

    def seek(self, time: float) -> bool:
        """Not offered: what is read here is rare, and reading through is always right."""
        return False


@contextmanager
def open_av(path: str, structure: Structure, megapixels: float = math.inf) -> Iterator[AvCapture]:
    """A file at its first frame.

    Raises:
        VideoError: it does not open, gives no frame, or its frames are larger than `megapixels`.
    """
    import av

    av.logging.set_level(None)
    with plain_name(path) as name:
        try:
            container = av.open(name)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise does_not_open(path, structure) from error
        with container:
            if not container.streams.video:
                raise VideoError(path, Reason.NO_VIDEO_STREAM)
            context = container.streams.video[0].codec_context
            if context.width * context.height > megapixels * 1e6:
                raise too_large(path, context.width, context.height, megapixels)
            try:
                capture = AvCapture(container, structure)
            except (av.FFmpegError, StopIteration) as error:
                reason = Reason.TRUNCATED if structure.damage else Reason.NO_FRAME_DECODED
                detail = structure.damage or f"codec {context.name}, damaged or encrypted"
                raise VideoError(path, reason, detail) from error
            yield capture
