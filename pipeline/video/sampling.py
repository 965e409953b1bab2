"""Which moments of a clip are looked at. Everything is in seconds; a frame number appears only at the end."""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-3
"""Seconds. WebM, Matroska and FLV round timestamps to the millisecond: a frame that a moment misses by less
than that counts as shown, or 29.97 frames per second asked of a 29.97 fps file would give some frames
twice."""


def uniform_times(start: float, end: float, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Moments spread over a clip: one in each of `count` equal segments of [start, end] (TSN, Wang et al.
    2016).

    Args:
        start, end: seconds, start <= end.
        count: number of moments, at least 1.
        rng: None takes each segment's centre; a generator takes a uniformly random moment inside it.

    Returns:
        float64 (count,), not decreasing.
    """
    if count < 1 or not start <= end:
        raise ValueError(f"cannot place {count} moments in [{start}, {end}]")
    offsets = np.full(count, 0.5) if rng is None else rng.random(count)
    times = start + (np.arange(count) + offsets) * ((end - start) / count)
    return np.clip(times, start, end)


def rate_times(
    start: float, end: float, fps: float, limit: int | None = None, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Moments at a fixed rate: start, start + 1/fps, ... up to and including end.

    Args:
        start, end: seconds, start <= end.
        fps: moments per second, above 0; not rounded, 29.97 is 29.97.
        limit: at most this many moments, one contiguous window of them.
        rng: a generator begins at a random phase under one step, and places the window at random; without one
            the moments begin at start and the window is the middle one.

    Returns:
        float64 (T,), T >= 1, increasing.
    """
    if fps <= 0 or not start <= end or (limit is not None and limit < 1):
        raise ValueError(f"cannot place moments at {fps} per second, limit {limit}, in [{start}, {end}]")
    # The phase stays inside the clip, so that a clip shorter than a step still has its moment.
    phase = 0.0 if rng is None else rng.random() * min(1.0 / fps, end - start)
    count = int(np.floor((end - start - phase) * fps + 1e-6)) + 1
    first = 0
    if limit is not None and count > limit:
        spare = count - limit
        first = spare // 2 if rng is None else int(rng.integers(spare + 1))
        count = limit
    return start + phase + np.arange(first, first + count) / fps


def frames_at(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Number of the frame on screen at each wanted moment.

    Args:
        times: float64 (N,) strictly increasing timestamps of the frames, N >= 1.
        wanted: float64 (T,) moments, in any order.

    Returns:
        int64 (T,): the last frame with time <= wanted + TOLERANCE, the first frame where there is none.
        Repeated frames are kept; `np.unique` removes them.
    """
    if len(times) == 0:
        raise ValueError("a clip without frames shows nothing at any moment")
    shown = np.searchsorted(np.asarray(times), np.asarray(wanted) + TOLERANCE, side="right") - 1
    return np.maximum(shown, 0).astype(np.int64)
