"""Sampling by time: segments, rates, and the frame on screen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.sampling import TOLERANCE, frames_at, rate_times, uniform_times

seconds = st.floats(0, 1e4)
lengths = st.floats(0, 100)
seeds = st.integers(0, 1000)


def test_uniform_centres() -> None:
    np.testing.assert_allclose(uniform_times(10.0, 14.0, 4), [10.5, 11.5, 12.5, 13.5])


@given(seconds, lengths, st.integers(1, 64), seeds)
def test_uniform_jitter_stays_in_its_segment(start: float, length: float, count: int, seed: int) -> None:
    times = uniform_times(start, start + length, count, np.random.default_rng(seed))
    edges = start + np.arange(count + 1) * length / count
    assert times.shape == (count,) and times.dtype == np.float64
    assert (times >= edges[:-1] - 1e-6).all() and (times <= edges[1:] + 1e-6).all()


def test_uniform_jitter_differs_and_repeats() -> None:
    one, two, again = (uniform_times(0, 5, 8, np.random.default_rng(seed)) for seed in (1, 2, 1))
    assert (one != two).all() and (one == again).all()


@given(
    seconds,
    lengths,
    st.floats(0.5, 60),
    st.one_of(st.none(), st.integers(1, 40)),
    st.one_of(st.none(), seeds),
)
def test_rate(start: float, length: float, fps: float, limit: int | None, seed: int | None) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    times = rate_times(start, start + length, fps, limit, rng)
    assert 1 <= len(times) <= (limit or np.inf)
    assert times[0] >= start and times[-1] <= start + length + 1e-6 * (1 + 1 / fps)
    np.testing.assert_allclose(np.diff(times), 1 / fps, rtol=1e-6, atol=1e-9)
    if limit is None:
        assert times[0] - start < 1 / fps + 1e-9
        assert times[-1] + 1 / fps > start + length - 1e-6


def test_rate_without_chance() -> None:
    np.testing.assert_allclose(rate_times(2.0, 3.0, 4.0), [2.0, 2.25, 2.5, 2.75, 3.0])
    np.testing.assert_allclose(rate_times(2.0, 3.0, 4.0, limit=3), [2.25, 2.5, 2.75])
    np.testing.assert_allclose(rate_times(7.0, 7.0, 8.0), [7.0])


def test_rate_window_reaches_every_part_of_the_clip() -> None:
    starts = [rate_times(0, 10, 4, 8, np.random.default_rng(seed))[0] for seed in range(200)]
    assert min(starts) < 0.5 and max(starts) > 7.5


@given(
    st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=50),
    st.lists(st.floats(-2, 60), min_size=1, max_size=50),
)
def test_frames_at_is_the_last_frame_not_after_the_moment(steps: list[float], wanted: list[float]) -> None:
    times = np.cumsum(steps)
    for moment, index in zip(wanted, frames_at(times, np.array(wanted)), strict=True):
        shown = [i for i, time in enumerate(times) if time <= moment + TOLERANCE]
        assert index == (shown[-1] if shown else 0)


def test_frames_at_keeps_duplicates() -> None:
    frames = frames_at(np.array([0.0, 1.0]), np.array([0.2, 0.8, 1.5]))
    assert frames.tolist() == [0, 0, 1] and frames.dtype == np.int64


def test_wrong_arguments() -> None:
    for call in (
        lambda: uniform_times(0, 1, 0),
        lambda: uniform_times(1, 0, 4),
        lambda: rate_times(0, 1, 0.0),
        lambda: rate_times(0, 1, 8.0, limit=0),
        lambda: frames_at(np.array([]), np.array([1.0])),
    ):
        with pytest.raises(ValueError):
            call()
