from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.selective import POINTS, risk_coverage, selected, threshold_for, thresholds

CONFIDENCE = np.array([0.6, 0.9, 0.8, 0.8, 0.5])
RIGHT = np.array([True, True, False, True, False])


def test_answers_of_one_confidence_are_kept_together() -> None:
    assert thresholds(CONFIDENCE, RIGHT) == [[0.9, 1, 1], [0.8, 3, 2], [0.6, 4, 3], [0.5, 5, 3]]


@pytest.mark.parametrize(("precision", "threshold"), [(1.0, 0.9), (0.75, 0.6), (0.7, 0.6), (0.6, 0.5)])
def test_the_threshold_keeps_as_much_as_the_precision_allows(precision: float, threshold: float) -> None:
    assert threshold_for(thresholds(CONFIDENCE, RIGHT), precision) == threshold


def test_no_threshold_reaches_what_no_answer_has() -> None:
    assert threshold_for(thresholds(CONFIDENCE, ~RIGHT), 0.9) is None
    assert threshold_for([], 0.9) is None


def test_risk_and_coverage_by_hand() -> None:
    found = risk_coverage(CONFIDENCE, RIGHT)
    assert [row["coverage"] for row in found["curve"]] == [0.2, 0.6, 0.8, 1.0]
    assert [row["risk"] for row in found["curve"]] == pytest.approx([0, 1 / 3, 1 / 4, 2 / 5])
    assert found["aurc"] == pytest.approx(np.mean([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5]))


def test_what_a_threshold_keeps() -> None:
    found = selected(CONFIDENCE, RIGHT, list("abcde"), 0.8)
    assert (found["kept"], found["coverage"], found["precision"]) == (3, 0.6, pytest.approx(2 / 3))
    assert found["precision_low"] < 2 / 3 < found["precision_high"]
    none = selected(CONFIDENCE, RIGHT, list("abcde"), 0.99)
    assert none["kept"] == 0 and none["precision"] is None and none["coverage"] == 0


def test_a_long_table_is_thinned_and_keeps_both_ends() -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.random(5000), rng.random(5000) < 0.7
    table = thresholds(confidence, right)
    assert len(table) == POINTS and table[0][1] == 1 and table[-1][1:] == [5000, int(right.sum())]
    assert table[-1][0] == confidence.min()
