"""One pass over a video file by OpenCV: moments first, pictures of those that are wanted."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video import decoder_threads
from pipeline.video.containers import Structure
from pipeline.video.display import STRAIGHT, is_mirrored, resize, square_size, too_large, turn
from pipeline.video.times import LATEST, Clock

# Format -1 makes grab() take packets from the container without decoding them.
PACKETS = [cv2.CAP_PROP_FORMAT, -1]

DECODABLE = frozenset("h264 avc1 hevc hev1 hvc1 vp80 vp90 fmp4 mp4v mjpg mpg1 mpg2".split())
"""Codecs every OpenCV wheel decodes: where one of these gives no frame, the stream is damaged."""

INTRA = frozenset("mjpg hfyu ffvh ffv1 apcn apch apcs apco ap4h png rgba".split())
"""Codecs whose frames do not depend on each other."""

SEEKABLE = INTRA | frozenset("h264 avc1 avc3 hevc hev1 hvc1 vp80 vp90 vp08 vp09 mp4v fmp4 xvid".split())
"""Codecs whose frames were found to be the same, to the bit, after a seek; those of H.263 were not."""

AFTER_END = 64
"""Frames asked for after the last one: OpenCV also says "no more" where a packet does not decode."""

EQUAL = 5e-7
"""Seconds by which two readings of one timestamp may differ."""


class Capture:
    """An opened file whose first frame is decoded.

    Attributes:
        codec: four-character code.
        rate: nominal frames per second, as the file claims.
        stored: width and height of the decoded frames, after OpenCV's turning.
        marks: what is unusual about it, as in `VideoInfo`.
        seekable: whether `seek` is worth trying.
        time: seconds of the current frame.
        claimed: frames the file claims to have, for messages.
    """

    def __init__(self, capture: cv2.VideoCapture, structure: Structure) -> None:
        """Args: capture: opened, its first frame grabbed."""
        self._capture = capture
        self._buffer: np.ndarray | None = None
        self.codec = fourcc(capture)
        self.claimed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.rate = capture.get(cv2.CAP_PROP_FPS)
        self._matrix = structure.matrix if is_mirrored(structure.matrix) else STRAIGHT
        if self._matrix != STRAIGHT:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        angle = capture.get(cv2.CAP_PROP_ORIENTATION_META)
        self._turned = abs(angle) in (90, 270)
        self._aspect = _aspect(capture)
        # AVI has no timestamps: what reordered frames get there depends on where the reading began.
        codecs = {"mp4": SEEKABLE, "matroska": SEEKABLE, "avi": INTRA}.get(structure.kind, frozenset())
        self.seekable = self.codec.lower() in codecs
        self._offset = self._find_offset(structure.start)
        self._clock = Clock(self.rate)
        self.time = self._clock.tick(self.stream_time(self._capture))
        size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.stored = size
        self.marks = structure.marks
        self.marks += ("rotated",) * (abs(angle) in (90, 180, 270) or self._matrix != STRAIGHT)
        self.marks += ("non-square pixels",) * (square_size(*size, self._aspect, self._turned) != size)

    def stream_time(self, capture: cv2.VideoCapture) -> float:
        """The file's own time, in seconds, of the frame or packet that a capture of this file has grabbed."""
        return float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000 + self._offset

    def _find_offset(self, start: float | None) -> float:
        """What OpenCV subtracted from every time: the time of the stream's first packet, or nothing.

        Where the structure does not tell it, OpenCV's own count in frames does, to half a frame.
        """
        self._offset = 0.0
        first = self.stream_time(self._capture)
        if not math.isfinite(first) or abs(first) > LATEST:
            return 0.0
        if start is None:
            frames = self._capture.get(cv2.CAP_PROP_PTS)
            start = frames / self.rate if 1 <= self.rate <= 1000 and abs(frames) < LATEST else 0.0
            return max(start - first, -first) if start > first else max(0.0, -first)
        # Streams that start behind the sound keep their own time; there is nothing to add.
        return 0.0 if abs(start - first) < EQUAL else max(start, -first)

    def advance(self) -> bool:
        """Decode the next frame; False at the end, or where a packet does not decode."""
        if not self._capture.grab():
            return False
        self.time = self._clock.tick(self.stream_time(self._capture))
        return True

    def picture(self) -> np.ndarray | None:
        """The current frame as shown, BGR uint8 (H, W, 3), valid until the next call; None if it fails."""
        ok, frame = self._capture.retrieve(self._buffer)
        if not ok or frame is None or not frame.size:
            return None
        self._buffer = frame
        return self.show(frame)

    def show(self, frame: np.ndarray) -> np.ndarray:
        """A decoded frame as shown: mirrored where the file says so, with square pixels."""
        if self._matrix != STRAIGHT:
            frame = turn(frame, self._matrix)
        height, width = frame.shape[:2]
        return resize(frame, *square_size(width, height, self._aspect, self._turned))

    @property
    def repaired(self) -> int:
        """Frames that were given a time."""
        return self._clock.repaired

    def goes_on(self) -> bool:
        """Whether frames follow the one that was called the last: then it was damage that ended the reading."""
        return any(self._capture.grab() for _ in range(AFTER_END))

    def seek(self, time: float) -> bool:
        """Go to the frame with exactly this timestamp; False where that cannot be shown to have worked.

        OpenCV goes to a key frame at least 16 frames before a time and decodes from there. It counts those
        frames by the nominal rate, so the time asked for is a little early and the rest is read and compared.
        """
        early = 2.5 / self.rate if 1.0 <= self.rate <= 1000.0 else 0.1
        self._capture.set(cv2.CAP_PROP_POS_MSEC, max(0.0, time - self._offset - early) * 1000)
        last = -math.inf
        while self._capture.grab():
            now = self.stream_time(self._capture)
            if not last < now < time + EQUAL:
                return False
            if now > time - EQUAL:
                self.time = time
                self._clock.jump(time)
                return True
            last = now
        return False


def fourcc(capture: cv2.VideoCapture) -> str:
    """The codec's four characters, those that can be printed."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    text = code.to_bytes(4, "little").decode("latin-1")
    return "".join(character for character in text if character.isprintable()).strip()


def _aspect(capture: cv2.VideoCapture) -> float:
    """Width of a pixel over its height; 1 where the file does not say."""
    across, down = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    return across / down if across > 0 and down > 0 else 1.0


def can_be_named(path: str) -> bool:
    """Whether a name is valid UTF-8; any other makes cv2.VideoCapture end the process."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def plain_name(path: str) -> Iterator[str]:
    """A name under which FFmpeg can open a file, whatever its own is.

    The absolute path keeps FFmpeg from seeing a protocol in `a:b.mp4`; a name that is not UTF-8 is replaced by
    that of an open descriptor.
    """
    if can_be_named(os.path.abspath(path)):
        yield os.path.abspath(path)
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def open_plain(path: str, options: list[int]) -> Iterator[cv2.VideoCapture | None]:
    """A capture, released at the end; None where the file does not open."""
    with plain_name(path) as name:
        try:
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, options)
        except cv2.error:
            yield None
            return
        try:
            yield capture if capture.isOpened() else None
        finally:
            capture.release()


@contextmanager
def open_capture(path: str, structure: Structure, megapixels: float = math.inf) -> Iterator[Capture]:
    """A file at its first frame.

    Raises:
        VideoError: it does not open, gives no frame, or its frames are larger than `megapixels`.
    """
    with open_plain(path, [cv2.CAP_PROP_N_THREADS, decoder_threads()]) as capture:
        if capture is None:
            raise does_not_open(path, structure)
        width, height = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > megapixels * 1e6:
            raise too_large(path, width, height, megapixels)
        codec = fourcc(capture)
        if capture.grab():
            yield Capture(capture, structure)
            return
    raise _no_frame(path, structure, codec)


def does_not_open(path: str, structure: Structure) -> VideoError:
    """Why FFmpeg finds no video in a file."""
    if structure.video is False and not structure.cut:
        return VideoError(path, Reason.NO_VIDEO_STREAM)
    if structure.encrypted:
        return VideoError(path, Reason.NO_FRAME_DECODED, "encrypted")
    if structure.damage:
        return VideoError(path, Reason.TRUNCATED, structure.damage)
    if structure.kind:
        return VideoError(path, Reason.NO_FRAME_DECODED, f"damaged: a file of kind {structure.kind} that does not open")
    return VideoError(path, Reason.NOT_A_VIDEO, "it does not open")


def _no_frame(path: str, structure: Structure, codec: str) -> VideoError:
    """Why a file that opens gives no frame: no packets, a codec this OpenCV lacks, or a damaged stream."""
    with open_plain(path, PACKETS) as capture:
        packets = capture is not None and capture.grab()
    if packets and not structure.encrypted and codec.lower() not in DECODABLE:
        return unsupported(path, f"codec {codec}")
    if structure.damage:
        return VideoError(path, Reason.TRUNCATED, structure.damage)
    if not packets:
        return VideoError(path, Reason.NO_FRAME_DECODED, "the video stream is empty")
    detail = "encrypted" if structure.encrypted else f"codec {codec}, damaged or encrypted"
    return VideoError(path, Reason.NO_FRAME_DECODED, detail)


def unsupported(path: str, what: str) -> VideoError:
    """The error for what OpenCV does not decode."""
    detail = f'{what} is beyond OpenCV; pip install "video-lstm[av]", or convert it, for example to H.264'
    return VideoError(path, Reason.UNSUPPORTED_CODEC, detail)
