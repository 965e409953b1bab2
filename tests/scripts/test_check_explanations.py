"""The planted clips hold their evidence where the list says, and what measures it can fail."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.video.reader import probe, read_frames


@pytest.fixture(scope="module")
def render() -> Any:
    return importlib.import_module("planted.render")


@pytest.fixture(scope="module")
def measure() -> Any:
    return importlib.import_module("planted.measure")


@pytest.mark.parametrize("kind", ["pattern", "motion"])
def test_the_evidence_is_where_the_truth_says(render: Any, kind: str, tmp_path: Path) -> None:
    truths = render.write_planted(kind, tmp_path, 16, 0)
    assert len(truths) == 4
    for truth in truths:
        path = str(tmp_path / truth.path)
        count = probe(path).frames
        assert count == render.FRAMES[kind] and 0 < truth.first <= truth.last < count
        frames = read_frames(path, np.arange(count)).frames.astype(np.float64)
        size = frames.shape[1]
        left, top, right, bottom = (round(side * size) for side in truth.box)
        inside = frames[:, top:bottom, left:right]
        during = np.abs(np.diff(inside, axis=0)).mean((1, 2, 3))[truth.first - 1 : truth.last]
        after = np.abs(inside[truth.last + 1 :] - inside[-1]).mean() if kind == "motion" else 0.0
        assert during.max() > 2 * after  # it appears or moves then, and a disc stands still afterwards


def test_the_pointing_game_can_be_lost(measure: Any, render: Any) -> None:
    truth = render.Truth("", 0, 1, (0.0, 0.0, 0.25, 0.25))
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 1
    assert measure.points(heat, truth) and not measure.points(np.roll(heat, 2, 1), truth)
    assert not measure.points(-heat, render.Truth("", 0, 1, (0.5, 0.5, 1.0, 1.0)))


def test_targets_that_are_missed_are_named() -> None:
    check = importlib.import_module("check_explanations")
    good = {"time_occlusion": 1.0, "time_gradients": 0.9, "space_evidence": 0.8, "deletion_random": 0.5}
    good |= {"insertion_random": 0.5, "shuffled_heat": 0.1}
    good |= {
        f"{curve}_{name}": x
        for name in ("occlusion", "gradients")
        for curve, x in (("deletion", 0.4), ("insertion", 0.6))
    }
    assert check.misses("motion", good) == []
    bad = good | {"time_gradients": 0.89, "deletion_occlusion": 0.6, "shuffled_heat": -0.7}
    assert check.misses("motion", bad) == [
        "motion time_gradients 0.890", "motion deletion_occlusion 0.600", "motion shuffled_heat -0.700",
    ]  # fmt: skip
