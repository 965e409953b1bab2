from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.report.time_text import FROZEN, MARGIN, PLAIN, POOLING, REVERSED, SHUFFLED, state, verdict
from pipeline.report.tracks import Track
from pipeline.report.variants import cost_of, cost_text, score_of, tally, variant_row

GROUPS = [str(i) for i in range(40)]


def losses(wrong: int, n: int = 40) -> np.ndarray:
    return np.stack([np.arange(n) < wrong, np.ones(n)], axis=1).astype(np.float64)


def test_losses_of_classes_moments_and_numbers() -> None:
    times = np.arange(3.0)
    one = Track("a", times, np.array([1]), np.array([0]), 3.0)
    moments = Track("b", times, np.array([1, -1, 0]), np.array([1, 1, 1]), 3.0)
    numbers = Track("c", times, np.array([1.0, np.nan, 2.0]), np.array([1.5, 9.0, 2.5]), 3.0)
    unknown = Track("d", times, np.array([-1, -1]), np.array([0, 0]), 3.0)
    assert tally([one, moments, numbers, unknown]).tolist() == [[1, 1], [1, 2], [1.0, 2], [0, 0]]


def test_the_cost_is_paired() -> None:
    """Both lose the same clips but five: their difference is far surer than either score."""
    plain, other = losses(20), losses(25)
    cost = cost_of(plain, other, GROUPS)
    score = score_of(plain, GROUPS, share=True)
    assert cost["cost"] == pytest.approx(0.125) and cost["cost_low"] > 0
    assert cost["cost_high"] - cost["cost_low"] < score["score_high"] - score["score_low"]


def test_clips_that_lose_nothing_leave_a_doubt_that_their_number_decides() -> None:
    few, many = losses(0, 6), losses(0, 200)
    names = [str(i) for i in range(200)]
    assert cost_of(few, few, names[:6])["cost_high"] == pytest.approx(1 - 0.025 ** (1 / 6))
    assert cost_of(many, many, names)["cost_high"] < MARGIN
    assert cost_of(few, few, names[:6])["cost_low"] == pytest.approx(-(1 - 0.025 ** (1 / 6)))


def row(name: str, wrong: int, plain: int = 4, n: int = 200) -> dict[str, Any]:
    names = [str(i) for i in range(n)]
    return variant_row(name, losses(wrong, n), losses(plain, n), names, True)


def rows(shuffled: int, frozen: int, pooling: int | None = None, plain: int = 4, n: int = 200) -> list[dict[str, Any]]:
    found = [row(PLAIN, plain, plain, n), row(SHUFFLED, shuffled, plain, n), row(REVERSED, plain, plain, n)]
    found.append(row(FROZEN, frozen, plain, n))
    return [*found, *([row(POOLING, pooling, plain, n)] if pooling is not None else [])]


@pytest.mark.parametrize(
    ("shuffled", "frozen", "starts", "holds"),
    [
        (120, 170, "The order of the frames is used", "several frames are used"),
        (100, 4, "The order of the frames is used", "one frame is enough"),
        (4, 150, "The order of the frames is not used", "several frames are used"),
        (4, 5, "Time is not used", "one frame alone loses"),
    ],
)
def test_what_follows(shuffled: int, frozen: int, starts: str, holds: str) -> None:
    told = verdict(rows(shuffled, frozen), True, 0.25, 200, True)
    assert told.startswith(starts) and holds in told


def test_clips_that_lose_when_reversed_alone_are_order_too() -> None:
    found = rows(4, 150)
    found[2] = row(REVERSED, 100)
    told = verdict(found, True, 0.25, 200, True)
    assert told.startswith("The order of the frames is used: reversed clips lose 0.48")


def test_few_clips_decide_nothing() -> None:
    told = verdict(rows(4, 4, plain=4, n=12), True, 0.25, 12, True)
    assert "cannot be told from 12 clips" in told and "is not used" not in told


def test_a_model_that_knows_nothing_says_nothing_about_time() -> None:
    told = verdict(rows(150, 150, plain=148), True, 0.25, 200, True)
    assert told.startswith("Nothing can be said about time") and "0.25" in told


def test_an_error_is_better_the_smaller_it_is() -> None:
    plain, worse = np.full((40, 2), 1.0), np.full((40, 2), 1.0)
    worse[:, 0] = 3.0 + np.arange(40) / 40
    found = [
        variant_row(name, x, plain, GROUPS, False)
        for name, x in ((PLAIN, plain), (SHUFFLED, worse), (REVERSED, worse), (FROZEN, worse))
    ]
    assert verdict(found, False, 2.5, 40, True).startswith("The order of the frames is used")
    assert verdict(found, False, 0.5, 40, True).startswith("Nothing can be said")


@pytest.mark.parametrize(("pooling", "says"), [(60, "earns its place"), (4, "earns nothing"), (3, "earns nothing")])
def test_a_recurrence_is_measured_against_pooling(pooling: int, says: str) -> None:
    assert says in verdict(rows(100, 150, pooling), True, 0.25, 200, True)


def test_a_model_without_a_recurrence_cannot_use_the_order() -> None:
    assert verdict(rows(4, 150), True, 0.25, 200, False).startswith("Without a recurrence")


def test_a_row_without_an_interval_stays_open() -> None:
    assert state({"cost": 1.0, "cost_low": None, "cost_high": None}, MARGIN) == "open"
    assert cost_text({"cost": -0.5, "cost_low": None, "cost_high": None}) == "\N{MINUS SIGN}0.500"
