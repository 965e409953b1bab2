"""Frames out of files: what a file really holds, and the frames one wants of it, with their timestamps.

A source is a video file, an animation, a still image (a clip of one frame) or a folder of images. What a
container claims about itself is not believed: frames are counted by decoding, times come from the stream.
"""

from __future__ import annotations

import math
import os

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video.av_reader import installed
from pipeline.video.capture import INTRA, Capture
from pipeline.video.clip import Clip, VideoInfo
from pipeline.video.display import resize
from pipeline.video.images import IMAGE_FOLDER_FPS, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Images, is_image_folder
from pipeline.video.mjpeg import SPARSE, open_motion_jpeg
from pipeline.video.sources import Source, open_source, unchanged
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
    with unchanged(path), open_source(path, megapixels) as (source, damage):
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
    with unchanged(path):
        clip = None
        if times is not None:
            clip = _collect(path, positions, [float(time) for time in times], seeking=True)
        if clip is None:
            known = None if times is None else [float(time) for time in times]
            clip = _collect(path, positions, known, seeking=False)
    assert clip is not None
    return clip


def _collect(path: str, positions: list[int], times: list[float] | None, seeking: bool) -> Clip | None:
    """The frames at these positions; None where leaping did not work, so that the file must be read through."""
    with open_source(path) as (source, _):
        sparse = seeking and positions[-1] >= SPARSE * len(positions)
        if sparse and isinstance(source, Capture):
            with open_motion_jpeg(path, source) as packets:
                if packets is not None:
                    try:
                        return _take(path, packets, positions, times, False)
                    except VideoError:
                        return None
        return _take(path, source, positions, times, seeking)


def _take(path: str, source: Source, positions: list[int], times: list[float] | None, seeking: bool) -> Clip | None:
    """The frames at these positions of an opened source; None where seeking in it did not work."""
    frames = _canvas(source, len(positions)) if isinstance(source, Images) else None
    found: list[float] = []
    far = FAR_INTRA if source.codec.lower() in INTRA else FAR
    index, sought = 0, False
    for number, position in enumerate(positions):
        time = times[number] if times else None
        if seeking and time is not None and source.seekable and position - index >= far:
            if not source.seek(time):
                return None
            index, sought = position, True
        try:
            frame = _frame_at(path, source, index, position, time)
        except VideoError:
            if sought:
                return None
            raise
        index = position
        if frames is None:
            frames = np.empty((len(positions), *frame.shape), dtype=np.uint8)
        frame = resize(frame, frames.shape[2], frames.shape[1])
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frames[number])
        found.append(source.time)
    assert frames is not None
    return Clip(frames, np.asarray(found, dtype=np.float64), path)


def _frame_at(path: str, source: Source, index: int, position: int, time: float | None) -> np.ndarray:
    """Decode from one frame on to another, which should be at a time (None: at any).

    Raises:
        VideoError: the frame is not there, is at another time, or does not convert.
    """
    while index < position:
        if not source.advance():
            detail = f"ended after {index + 1} frames; the file changed?"
            raise VideoError(path, Reason.NO_FRAME_DECODED, detail)
        index += 1
    if time is not None and abs(source.time - time) > SAME_TIME:
        detail = f"frame {position} is at {source.time:.6f} s and not {time:.6f}; the file changed?"
        raise VideoError(path, Reason.NOT_READABLE, detail)
    frame = source.picture()
    if frame is None:
        raise VideoError(path, Reason.NO_FRAME_DECODED, f"frame {position} does not decode")
    return frame


def _canvas(source: Images, count: int) -> np.ndarray:
    """Room for the frames of a folder, all at the size of its first image."""
    return np.empty((count, *source.picture().shape), dtype=np.uint8)
