"""Timestamps: kept where they increase, given where they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.times import Clock


def tick_all(times: list[float], rate: float) -> tuple[list[float], int]:
    clock = Clock(rate)
    return [clock.tick(time) for time in times], clock.repaired


@pytest.mark.parametrize(
    ("times", "rate", "expected", "repaired"),
    [
        ([0, 0.04, 0.08], 25, [0, 0.04, 0.08], 0),
        ([10, 10.04], 25, [10, 10.04], 0),
        ([0, 0, 0], 10, [0, 0.1, 0.2], 2),
        ([0, 0, 0], 0, [0, 0.04, 0.08], 2),
        ([0, 0], math.nan, [0, 0.04], 1),
        ([0.1, 0.14, 0], 25, [0.1, 0.14, 0.18], 1),
        ([0.1, 0.2, 0], 25, [0.1, 0.2, 0.3], 1),
        ([math.nan, 0.04, math.nan, 0.09], 25, [0, 0.04, 0.08, 0.09], 2),
        ([-9e15, -9e15, 0.2], 20, [0, 0.05, 0.2], 2),
        ([0, math.inf, 0.08], 25, [0, 0.04, 0.08], 1),
        ([0, 0.04, 0, 0.04], 25, [0, 0.04, 0.08, 0.12], 2),
        ([0, 2e-126, 0, 1, 0], 25, [0, 0.04, 0.08, 1, 1.04], 3),  # a step too small to be added
    ],
)
def test_repairs(times: list[float], rate: float, expected: list[float], repaired: int) -> None:
    found, count = tick_all(times, rate)
    np.testing.assert_allclose(found, expected)
    assert count == repaired


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 100), min_size=1, max_size=40),
    st.floats(allow_nan=True),
    st.integers(1, 40),
)
def test_times_increase_and_a_part_has_the_times_of_the_whole(times: list[float], rate: float, part: int) -> None:
    whole, _ = tick_all(times, rate)
    assert np.isfinite(whole).all() and (np.diff(whole) > 0).all() and whole[0] >= 0
    assert tick_all(times[:part], rate)[0] == whole[:part]


def test_after_a_jump_the_files_own_times_go_on() -> None:
    clock = Clock(25)
    clock.tick(0.0)
    clock.jump(5.0)
    assert clock.tick(5.5) == 5.5 and clock.tick(0.0) == 6.0
