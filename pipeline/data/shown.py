"""One file as a person is to see it: what the model takes in, and the frames around it. Runs in decoding processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import ClipInputs, Plan, choose_frames, load_clip
from pipeline.data.loading import check_examined
from pipeline.errors import VideoError
from pipeline.video.heatmap import shrink
from pipeline.video.reader import probe, read_frames

FRAMES = 240
"""Frames that are shown of one clip, at most, besides the model's moments."""
SIDE = 480
"""Pixels of their longer side, at most."""
MEMORY = 256_000_000
"""Bytes of full-size frames that are held at a time."""


@dataclass(frozen=True)
class ShownClip:
    """What came of one file.

    Attributes:
        path: as it was given.
        clip: what the model takes in; None when the file gave none.
        error: why it gave none.
        frames: uint8 (N, H, W, 3) RGB, those of the moments among them; small.
        frame_times: float64 (N,) seconds after the file's first frame.
        at: int64 (T,), which frame each moment of `clip` is.
        duration: seconds.
        note: what is wrong with a file that gave a clip all the same.
    """

    path: str
    clip: ClipInputs | None
    error: VideoError | None = None
    frames: NDArray[np.uint8] | None = None
    frame_times: NDArray[np.float64] | None = None
    at: NDArray[np.int64] | None = None
    duration: float = 0.0
    note: str = ""


def load_shown(plan: Plan, path: str) -> ShownClip:
    """Read one file: its evaluation view, and frames spread over all of it."""
    try:
        info = probe(path, megapixels=plan.limits.megapixels)
        check_examined(plan, ClipFile(path), info)
        clip = load_clip(path, info.times, plan)
        moments = choose_frames(info.times, plan.video)
        spread = np.linspace(0, info.frames - 1, min(info.frames, FRAMES)).round().astype(np.int64)
        wanted = np.union1d(moments, spread)
        frames = _small_frames(path, wanted, info.times, info.width * info.height * 3)
    except VideoError as error:
        return ShownClip(path, None, error)
    times = info.times[wanted] - info.times[0]
    return ShownClip(path, clip, None, frames, times, np.searchsorted(wanted, moments), info.duration, info.damage)


def _small_frames(path: str, wanted: NDArray[np.int64], times: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Chosen frames, shrunk; in pieces, so that only a part of them is there at full size (`size` bytes each)."""
    count = max(1, MEMORY // size)
    pieces = [wanted[start : start + count] for start in range(0, len(wanted), count)]
    return np.concatenate([shrink(read_frames(path, piece, times[piece]).frames, SIDE) for piece in pieces])
