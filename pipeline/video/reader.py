"""Frames out of files: what a file really holds, and the frames one wants of it, with their timestamps.

A source is a video file, a still image (a clip of one frame) or a folder of images. What a container claims
about
itself is not believed: frames are counted by decoding, times come from the stream.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video.images import (
    IMAGE_FOLDER_FPS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    decode_image,
    decode_in_folder,
    folder_images,
    is_image_folder,
    read_images,
    resize,
    suffix,
)
from pipeline.video.thumbnails import Thumbnails

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

DECODER = f"opencv {cv2.__version__}"
"""What decodes here; results of `probe` hold for this version."""

DECODABLE = frozenset("h264 avc1 hevc hev1 hvc1 vp80 vp90 fmp4 mp4v mjpg mpg1 mpg2".split())
"""Codecs every OpenCV wheel decodes: where one of these gives no frame, the stream is damaged."""


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


def probe(path: str, *, megapixels: float = math.inf, thumbnails: bool = False) -> VideoInfo:
    """Decode a whole source once and say what it holds.

    Args:
        path: a video file, an image, or a folder of images.
        megapixels: largest frame in millions of pixels; a larger one is refused before it is decoded.
        thumbnails: take the thumbnails of `VideoInfo` on the way.

    Raises:
        VideoError: the source gives no frame; its reason says why.
    """
    path = os.fspath(path)
    _check(path)
    if os.path.isdir(path):
        images = folder_images(path)
        height, width = decode_in_folder(path, images[0]).shape[:2]
        seen = Thumbnails()
        for index, image in enumerate(images):
            frame, time = decode_in_folder(path, image), index / IMAGE_FOLDER_FPS
            if thumbnails and seen.wants(time):
                seen.add(time, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        return VideoInfo(np.arange(len(images)) / IMAGE_FOLDER_FPS, width, height, "image", thumbnails=seen.array())
    if suffix(path) in IMAGE_SUFFIXES:
        frame = decode_image(path)
        height, width = frame.shape[:2]
        seen = Thumbnails()
        if thumbnails:
            seen.add(0.0, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        return VideoInfo(np.zeros(1), width, height, "image", thumbnails=seen.array())
    return _probe_video(path, megapixels, thumbnails)


def read_frames(path: str, indices: np.ndarray, times: np.ndarray | None = None) -> Clip:
    """Chosen frames of a source; decoding stops after the last of them.

    Args:
        path: a video file, an image, or a folder of images.
        indices: int64 (T,) positions among the frames that `probe` counted; sorted, unique, at least one.
        times: float64 (T,) the timestamps that `probe` found for these frames.

    Returns:
        The frames, RGB. Should the size change in mid-stream, all have that of the first wanted frame
        (folder of images: of the folder's first image).

    Raises:
        VideoError: the source does not open, or ends before the last index.
        ValueError: indices that are empty, negative or not increasing.
    """
    path, wanted = os.fspath(path), np.asarray(indices)
    if wanted.ndim != 1 or wanted.size == 0 or wanted[0] < 0 or (np.diff(wanted) <= 0).any():
        raise ValueError("indices must be a non-empty, increasing list of frame numbers")
    _check(path)
    positions = [int(index) for index in wanted]
    if os.path.isdir(path):
        frames, times = read_images(path, positions), [index / IMAGE_FOLDER_FPS for index in positions]
    elif suffix(path) in IMAGE_SUFFIXES:
        if positions != [0]:
            raise VideoError(path, Reason.NO_FRAME_DECODED, "ended after 1 frames; the file changed?")
        frames, times = [decode_image(path)], [0.0]
    else:
        frames, times = _read_video(path, positions)
    height, width = frames[0].shape[:2]
    stacked = np.stack([resize(frame, width, height) for frame in frames])
    return Clip(stacked, np.asarray(times, dtype=np.float64), path)


def _check(path: str) -> None:
    """Raise VideoError for what can be known before decoding: missing, unreadable, empty, not a file."""
    try:
        # A name that is not valid UTF-8 makes cv2.VideoCapture end the process with a segmentation fault.
        path.encode("utf-8")
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return
        if not stat.S_ISREG(mode):
            raise VideoError(path, Reason.NOT_A_VIDEO, "not a regular file")
        with open(path, "rb") as file:
            empty = not file.read(1)
    except UnicodeEncodeError as error:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise VideoError(shown, Reason.NOT_READABLE, "its name is not valid UTF-8; rename it") from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise VideoError(path, Reason.NOT_FOUND) from error
    except OSError as error:
        raise VideoError(path, Reason.NOT_READABLE, error.strerror or "") from error
    if empty:
        raise VideoError(path, Reason.EMPTY)


@contextmanager
def _open(path: str, options: list[int]) -> Iterator[cv2.VideoCapture]:
    """An opened capture, released at the end. The absolute path keeps FFmpeg from seeing a protocol in
    `a:b.mp4`.

    Raises:
        VideoError: NOT_A_VIDEO where it does not open.
    """
    try:
        capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, options)
    except cv2.error as error:
        raise VideoError(path, Reason.NOT_A_VIDEO, "it does not open") from error
    try:
        if not capture.isOpened():
            raise VideoError(path, Reason.NOT_A_VIDEO, "it does not open")
        yield capture
    finally:
        capture.release()


# One decoder thread: the loaders run one process per core, where more threads made reading a fifth slower.
_DECODE = [cv2.CAP_PROP_N_THREADS, 1]
# Format -1 makes grab() take packets from the container without decoding them.
_PACKETS = [cv2.CAP_PROP_FORMAT, -1]


def _timestamps(capture: cv2.VideoCapture) -> Iterator[float]:
    """Grab frame after frame; yields each one's time in seconds, strictly increasing, until the stream ends.

    The stream's timestamp is kept where it is a number above the last one. Otherwise (raw streams say 0 for
    every frame, decoders flush the last frames of some AVIs without a time, joined streams start again) the
    frame comes
    one nominal step after the one before: 1 / CAP_PROP_FPS where that lies in 1 to 1000, else 1 / 25 s. The
    first frame keeps its time unless that is negative or not a number, then it is 0. The rule looks only
    backwards, so reading a part of a file gives the times that decoding the whole of it gave.
    """
    claimed = capture.get(cv2.CAP_PROP_FPS)
    step = 1.0 / claimed if 1.0 <= claimed <= 1000.0 else 1.0 / 25.0
    last = -math.inf
    while capture.grab():
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if last == -math.inf:
            last = time if math.isfinite(time) and time >= 0 else 0.0
        else:
            last = time if math.isfinite(time) and time > last else last + step
        yield last


def _fourcc(capture: cv2.VideoCapture) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    text = code.to_bytes(4, "little").decode("latin-1")
    return "".join(character for character in text if character.isprintable()).strip()


def _probe_video(path: str, megapixels: float, thumbnails: bool) -> VideoInfo:
    times: list[float] = []
    size: tuple[int, int] | None = None
    seen = Thumbnails()
    with _open(path, _DECODE) as capture:
        codec = _fourcc(capture)
        width, height = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > megapixels * 1e6:
            raise VideoError(path, Reason.TOO_LARGE, f"{width:.0f} x {height:.0f}, the limit is {megapixels:g} MP")
        for time in _timestamps(capture):
            times.append(time)
            if size is None or (thumbnails and seen.wants(time)):
                ok, frame = capture.retrieve()
                if ok and size is None:
                    size = frame.shape[:2]
                if ok and thumbnails:
                    seen.add(time, frame)
    if size is None:
        raise _no_frame(path, codec)
    return VideoInfo(np.array(times, dtype=np.float64), size[1], size[0], codec, thumbnails=seen.array())


def _no_frame(path: str, codec: str) -> VideoError:
    """Why a file that opens gives no frame: no packets, a codec this OpenCV lacks, or a damaged stream."""
    with _open(path, _PACKETS) as capture:
        packets = capture.grab()
    if not packets:
        return VideoError(path, Reason.NO_FRAME_DECODED, "the video stream is empty")
    if codec.lower() in DECODABLE:
        return VideoError(path, Reason.NO_FRAME_DECODED, f"codec {codec}, damaged or encrypted")
    hint = f"codec {codec}; convert it, for example to H.264"
    return VideoError(path, Reason.UNSUPPORTED_CODEC, hint)


def _read_video(path: str, positions: list[int]) -> tuple[list[np.ndarray], list[float]]:
    """The wanted frames of a video file, RGB, and their times; `positions` increase."""
    frames: list[np.ndarray] = []
    times: list[float] = []
    count = 0
    with _open(path, _DECODE) as capture:
        for index, time in enumerate(_timestamps(capture)):
            count = index + 1
            if index != positions[len(frames)]:
                continue
            ok, frame = capture.retrieve()
            if not ok:
                raise VideoError(path, Reason.NO_FRAME_DECODED, f"frame {index} does not decode")
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            times.append(time)
            if len(frames) == len(positions):
                return frames, times
    raise VideoError(path, Reason.NO_FRAME_DECODED, f"ended after {count} frames; the file changed?")
