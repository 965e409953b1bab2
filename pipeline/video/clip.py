"""What comes out of a source: its frames with their moments, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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
