"""Clips as they come from other cameras, recorders and networks: encoded again, smaller, with lost frames, brighter,
darker, noisy. Each is written as a file and read as any file is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.data.clip_file import ClipFile
from pipeline.video.reader import read_frames
from pipeline.video.writer import video_writer

Frames = NDArray[np.uint8]

LONGEST_SIDE = 640
"""Pixels; larger frames are made smaller first, the unchanged copy too, which says what that costs."""
CHUNK = 400_000_000
"""Bytes of frames that are read at a time."""
LOSSLESS = (".mkv", "FFV1")


@dataclass(frozen=True)
class Corruption:
    """One way of being worse.

    Attributes:
        name: what a table calls it.
        kind: what several strengths of it have in common.
        change: from frames uint8 (T, H, W, 3) and a seed to such frames, perhaps of another size.
        container: suffix and codec it is written in.
    """

    name: str
    kind: str
    change: Callable[[Frames, int], Frames]
    container: tuple[str, str] = LOSSLESS


def _unchanged(frames: Frames, _: int) -> Frames:
    return frames


def _jpeg(quality: int) -> Callable[[Frames, int], Frames]:
    """Motion JPEG at a low quality, which OpenCV's writer cannot be asked for: every frame a JPEG."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]

    def change(frames: Frames, _: int) -> Frames:
        return np.stack([_decoded(cv2.imencode(".jpg", frame[..., ::-1], settings)[1]) for frame in frames])

    return change


def _decoded(coded: NDArray[np.uint8]) -> Frames:
    """A JPEG's frame uint8 (H, W, 3) RGB."""
    frame = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert frame is not None  # it was encoded a moment ago
    return frame[..., ::-1].astype(np.uint8)


def _smaller(factor: int) -> Callable[[Frames, int], Frames]:
    def change(frames: Frames, _: int) -> Frames:
        height, width = (max(2, side // factor) for side in frames.shape[1:3])
        return _each(frames, A.Resize(height, width, interpolation=cv2.INTER_AREA), 0)

    return change


def _lost(share: float) -> Callable[[Frames, int], Frames]:
    """A lost frame is the one before shown again, as players and recorders do; the first one is never lost."""

    def change(frames: Frames, seed: int) -> Frames:
        kept = np.random.default_rng(seed).random(len(frames)) >= share
        kept[0] = True
        return frames[np.maximum.accumulate(np.where(kept, np.arange(len(frames)), 0))]

    return change


def _brighter(amount: float) -> Callable[[Frames, int], Frames]:
    step = A.RandomBrightnessContrast(
        brightness_limit=(amount, amount), contrast_limit=(0, 0), brightness_by_max=True, p=1
    )
    return lambda frames, seed: _each(frames, step, seed)


def _noisy(deviation: float) -> Callable[[Frames, int], Frames]:
    """Every frame has noise of its own, as a sensor's has."""
    step = A.GaussNoise(std_range=(deviation / 255, deviation / 255), mean_range=(0, 0), p=1)
    return lambda frames, seed: _each(frames, step, seed)


def _each(frames: Frames, step: A.BasicTransform, seed: int) -> Frames:
    """One frame after the other, each with a draw of its own."""
    composed = A.Compose([step])
    composed.set_random_seed(seed)
    return np.stack([composed(image=frame)["image"] for frame in frames]).astype(np.uint8)


COPY = "copied without loss"
CORRUPTIONS = (
    Corruption(COPY, "control", _unchanged),
    Corruption("encoded again: MPEG-4", "encoding", _unchanged, (".mp4", "mp4v")),
    Corruption("encoded again: VP8", "encoding", _unchanged, (".webm", "VP80")),
    Corruption("low bitrate: JPEG quality 30", "bitrate", _jpeg(30)),
    Corruption("low bitrate: JPEG quality 8", "bitrate", _jpeg(8)),
    Corruption("half the size", "size", _smaller(2)),
    Corruption("a quarter of the size", "size", _smaller(4)),
    Corruption("a quarter of the frames lost", "frames", _lost(0.25)),
    Corruption("half of the frames lost", "frames", _lost(0.5)),
    Corruption("darker by 0.25", "brightness", _brighter(-0.25)),
    Corruption("brighter by 0.25", "brightness", _brighter(0.25)),
    Corruption("noise of 10 grey values", "noise", _noisy(10)),
    Corruption("noise of 25 grey values", "noise", _noisy(25)),
)
"""In the order of a table. Brightness is a share of the full range; noise is normal, its deviation of 255."""


def write_corrupted(folder: str, item: tuple[int, ClipFile]) -> list[str]:
    """Write a clip in every way of `CORRUPTIONS`; runs in a decoding process.

    The copies have a constant frame rate, the clip's mean; the even sides that codecs want are made by repeating the
    last row or column.

    Args:
        folder: where they go; names begin with the clip's number.
        item: the clip's number, and the clip, with known times.

    Returns:
        The paths, in the order of `CORRUPTIONS`.

    Raises:
        VideoError: the clip cannot be read.
    """
    number, file = item
    assert file.times is not None
    frames = np.concatenate(list(_frames(file)))
    span = float(file.times[-1] - file.times[0])
    rate = (len(frames) - 1) / span if span > 0 else 25.0
    seed = int(file.digest[:12] or "0", 16)
    paths = []
    for index, corruption in enumerate(CORRUPTIONS):
        suffix, codec = corruption.container
        path = os.path.join(folder, f"{number:05d}-{index:02d}{suffix}")
        changed = _even(corruption.change(frames, seed))
        with video_writer(path, changed.shape[2], changed.shape[1], rate, codec) as write:
            for frame in changed:
                write(frame)
        paths.append(path)
    return paths


def _frames(file: ClipFile) -> Iterator[Frames]:
    """The clip's frames in parts, none of them larger than `LONGEST_SIDE`."""
    assert file.times is not None
    times, at, step = file.times, 0, 1
    while at < len(times):
        chosen = np.arange(at, min(at + step, len(times)))
        part = read_frames(file.path, chosen + file.first, times[chosen]).frames
        step = max(1, int(CHUNK / part[0].nbytes))
        at += len(chosen)
        longest = max(part.shape[1:3])
        if longest > LONGEST_SIDE:
            height, width = (max(2, math.floor(side * LONGEST_SIDE / longest)) for side in part.shape[1:3])
            part = _each(part, A.Resize(height, width, interpolation=cv2.INTER_AREA), 0)
        yield part


def _even(frames: Frames) -> Frames:
    return np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
