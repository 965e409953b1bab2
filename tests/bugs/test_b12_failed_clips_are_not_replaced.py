"""B12: a clip that could not be decoded was replaced by another one, and the score hid it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.metrics import evaluate_predictions
from pipeline.report.text import print_metrics

PATHS = ["a.mp4", "b.mp4", "c.mp4"]
FAILED = [{"path": "broken.mp4", "reason": "no frame decoded"}]
LABELS = np.array([0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])


def test_coverage_and_the_failed_files_stand_beside_the_score() -> None:
    found = evaluate_predictions(PATHS, LABELS, PROBABILITIES, ["x", "y"], PATHS, 4, FAILED)
    assert (found["n"], found["expected"], found["coverage"]) == (3, 4, 0.75)
    assert found["failed"] == FAILED
    assert sum(map(sum, found["confusion"])) == 3
    text = print_metrics(found)
    assert "3/4 clips" in text
    assert "broken.mp4: no frame decoded" in text


@pytest.mark.parametrize("expected", [3, 5])
def test_a_file_that_is_neither_scored_nor_failed_is_noticed(expected: int) -> None:
    with pytest.raises(ValueError, match="every file must be one or the other"):
        evaluate_predictions(PATHS, LABELS, PROBABILITIES, ["x", "y"], PATHS, expected, FAILED)


def test_a_failed_file_cannot_be_scored_with_the_frames_of_another() -> None:
    scored = ["a.mp4", "broken.mp4", "c.mp4"]
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        evaluate_predictions(scored, LABELS, PROBABILITIES, ["x", "y"], scored, 4, FAILED)
