"""One checkpoint, one number: evaluate, classify and the Python API agree to the last bit, whoever else is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipeline
from pipeline.config import DataConfig
from pipeline.data.batches import collate
from pipeline.data.clips import load_clip
from pipeline.stages.evaluate import score
from pipeline.stages.ingest import ingest
from pipeline.stages.predict import Predictor
from pipeline.video.reader import probe

Numbers = dict[str, bytes]


def api(predictor: Predictor, paths: list[str], workers: int = 0) -> Numbers:
    predictions = predictor.predict(paths, workers)
    return {p.path: p.probabilities.tobytes() for p in predictions if p.probabilities is not None}


@pytest.fixture(scope="module")
def paths(tiny_clips: Path) -> list[str]:
    return [str(path) for path in sorted(tiny_clips.rglob("*.*"))]


@pytest.fixture(scope="module")
def expected(predictor: Predictor, paths: list[str]) -> Numbers:
    found = api(predictor, paths)
    assert len(found) == 30 and len(set(found.values())) > 25
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluate_scores_these_probabilities(
    predictor: Predictor, tiny_clips: Path, expected: Numbers, workers: int
) -> None:
    table = ingest(DataConfig(root=str(tiny_clips)), split=False).table
    predictions = score(predictor, table, workers).predictions
    assert {p.path: p.probabilities.tobytes() for p in predictions if p.probabilities is not None} == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_classify_writes_these_probabilities(
    predictor: Predictor, tiny_clips: Path, expected: Numbers, workers: int
) -> None:
    result = pipeline.classify(predictor, [str(tiny_clips)], top_k=3, workers=workers)
    found = {}
    for row in result.table:
        if row["status"] == "ok":
            named = {entry["label"]: entry["probability"] for entry in row["top_k"]}
            found[row["path"]] = np.array([named[name] for name in predictor.classes]).tobytes()
    assert found == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_does_not_feel_its_neighbours(
    predictor: Predictor, paths: list[str], expected: Numbers, workers: int
) -> None:
    assert api(predictor, paths[::-1], workers) == expected
    for path in list(expected)[::7]:
        assert api(predictor, [path], workers) == {path: expected[path]}


def test_a_checkpoint_read_again_gives_them_too(example: Any, paths: list[str], expected: Numbers) -> None:
    torch.manual_seed(99)
    assert api(pipeline.load(str(example.folder / "best"), "cpu"), paths) == expected


def test_they_are_the_softmax_of_the_models_own_logits(predictor: Predictor, expected: Numbers) -> None:
    """By hand, from the file to the number."""
    for path in list(expected)[::9]:
        clip = load_clip(path, probe(path).times, predictor.plan)
        with torch.inference_mode():
            batch = collate([clip.inputs], [0])
            features = predictor.model.encode(batch.inputs, batch.lengths)
            logits = predictor.model.head(features, batch.lengths)[0]
        by_hand = torch.softmax(logits.double() / predictor.temperature, dim=-1).numpy()
        assert np.frombuffer(expected[path]) == pytest.approx(by_hand, abs=1e-7)
        assert by_hand.sum() == pytest.approx(1)
