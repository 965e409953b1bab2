"""B15: clips counted as videos, and padding of a distributed evaluation counted twice."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.metrics import evaluate_predictions


def test_a_file_with_two_predictions_is_refused() -> None:
    paths = ["a.mp4", "b.mp4", "a.mp4"]
    with pytest.raises(ValueError, match=r"more than one prediction.*a\.mp4"):
        evaluate_predictions(paths, np.array([0, 1, 0]), np.eye(2)[[0, 1, 0]], ["x", "y"], paths, 3, [])


def test_each_file_counts_once() -> None:
    paths = ["a.mp4", "b.mp4"]
    found = evaluate_predictions(paths, np.array([0, 1]), np.eye(2)[[0, 0]], ["x", "y"], paths, 2, [])
    assert found["n"] == 2
    assert found["top1"] == 0.5
