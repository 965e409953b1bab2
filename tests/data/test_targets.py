"""Targets over time: whichever moments a view looks at, each has the class or the value of its own time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.targets import SLACK, Curve, Segments, class_of, classes_in, target_at

gaps = st.lists(st.floats(0.01, 3.0), min_size=2, max_size=12)


def segments(*rows: tuple[float, float, int]) -> Segments:
    starts, ends, classes = zip(*rows, strict=True) if rows else ((), (), ())
    return Segments(np.array(starts, float), np.array(ends, float), np.array(classes, int))


def test_a_start_belongs_to_its_segment_and_an_end_does_not() -> None:
    target = segments((0.5, 1.0, 3), (1.0, 1.5, 1), (2.0, np.inf, 0))
    times = np.array([0.0, 0.499, 0.5, 0.75, 1.0, 1.5, 1.9, 2.0, 99.0])
    found = target.at(times)
    assert found.dtype == np.int64
    assert found.tolist() == [-1, 3, 3, 3, 1, -1, -1, 0, 0]  # 0.499: a millisecond of a container's rounding
    assert segments().at(times).tolist() == [-1] * 9


@given(gaps, st.lists(st.booleans(), min_size=12, max_size=12), st.lists(st.floats(0, 40), min_size=1, max_size=30))
def test_each_moment_has_the_class_of_the_segment_that_it_lies_in(
    lengths: list[float], kept: list[bool], moments: list[float]
) -> None:
    edges = np.cumsum(lengths)
    rows = [(a, b, n) for n, (a, b) in enumerate(itertools.pairwise(edges)) if kept[n]]
    target = segments(*rows)
    found = target.at(np.array(moments))
    for moment, number in zip(moments, found.tolist(), strict=True):
        if np.abs(edges - moment).min() > 2 * SLACK:
            assert number == next((n for a, b, n in rows if a <= moment < b), -1)
    duration = float(edges[-1]) / 2
    seconds = target.seconds(duration)
    for a, b, n in rows:
        assert seconds.get(n, 0.0) == pytest.approx(max(0.0, min(b, duration) - a))


@given(gaps, st.lists(st.floats(-1e3, 1e3), min_size=12, max_size=12), st.lists(st.floats(0, 40), max_size=30))
def test_a_curve_is_linear_between_its_points_and_unknown_outside(
    lengths: list[float], heights: list[float], moments: list[float]
) -> None:
    times = np.cumsum(lengths)
    curve = Curve(times, np.array(heights[: len(times)]))
    found = curve.at(np.array(moments))
    assert found.dtype == np.float32
    for moment, value in zip(moments, found.tolist(), strict=True):
        if moment < times[0] - 2 * SLACK or moment > times[-1] + 2 * SLACK:
            assert np.isnan(value)
        elif times[0] <= moment < times[-1]:
            n = int(np.searchsorted(times, moment, side="right")) - 1
            share = (moment - times[n]) / (times[n + 1] - times[n])
            assert value == pytest.approx(heights[n] * (1 - share) + heights[n + 1] * share, rel=1e-5, abs=1e-3)
    np.testing.assert_array_equal(curve.at(times), curve.values.astype(np.float32))


def test_a_target_of_the_whole_clip_is_the_same_at_all_moments() -> None:
    times = np.arange(3.0)
    assert target_at(4, times) == 4 and target_at(2.5, times) == 2.5
    at = target_at(segments((1.0, 9.0, 2)), times)
    assert isinstance(at, np.ndarray) and at.tolist() == [-1, 2, 2]


def test_the_class_of_a_file_is_the_one_that_lasts_longest() -> None:
    target = segments((0.0, 1.0, 5), (1.0, 3.0, 2), (3.0, np.inf, 7))
    assert [class_of(target, duration) for duration in (0.5, 3.5, 9.0)] == [5, 2, 7]
    assert class_of(segments((0.0, 1.0, 5), (1.0, 2.0, 2)), 2.0) == 2
    assert class_of(3, 1.0) == 3 and class_of(2.5, 1.0) == -1 and class_of(segments(), 1.0) == -1
    assert classes_in(target) == {2, 5, 7} and classes_in(3) == {3}
    assert classes_in(-1) == set() == classes_in(2.5) == classes_in(Curve(np.zeros(1), np.zeros(1)))
