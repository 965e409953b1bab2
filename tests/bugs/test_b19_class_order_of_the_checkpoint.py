"""B19: training takes the order of classes from a list, prediction from a folder listing (eriklindernoren)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.model import checkpoint
from pipeline.stages.classify import classify
from pipeline.stages.evaluate import evaluate
from pipeline.stages.models import load_model
from pipeline.stages.predict import Predictor

ORDER = ["red", "blue", "green"]


@pytest.fixture(scope="module")
def reordered(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The trained model with its outputs in an order that no sorting gives, saved and loaded."""
    model, card = checkpoint.load(example.folder / "best")
    places = torch.tensor([card.classes.index(name) for name in ORDER])
    weights = {name: x[places] if ".output." in name else x for name, x in model.state_dict().items()}
    assert sum(not torch.equal(weights[name], x) for name, x in model.state_dict().items()) == 2
    folder = tmp_path_factory.mktemp("reordered") / "model"
    checkpoint.save(folder, weights, replace(card, classes=ORDER))
    return load_model(str(folder), "cpu")


def test_labels_are_those_of_the_checkpoint(reordered: Predictor, predictor: Predictor, tiny_clips: Path) -> None:
    assert reordered.classes == ORDER
    mine, other = (classify(model, [str(tiny_clips)], workers=0).table for model in (reordered, predictor))
    assert [row.get("label") for row in mine] == [row.get("label") for row in other]
    assert [row["label"] for row in mine if row["status"] == "ok"] == [
        Path(row["path"]).parent.name for row in mine if row["status"] == "ok"
    ]


def test_scores_are_those_of_the_checkpoint(reordered: Predictor, predictor: Predictor) -> None:
    mine, other = evaluate(reordered, None), evaluate(predictor, None)
    assert mine["top1"] == other["top1"] == 1.0
    assert mine["log_loss"] == pytest.approx(other["log_loss"])
    assert [row["class"] for row in mine["per_class"]] == ORDER


def test_a_folder_with_fewer_classes_does_not_shift_them(
    predictor: Predictor, tiny_clips: Path, tmp_path: Path
) -> None:
    """Counted in this folder, "green" would be number 0, which is blue, and "red" number 1."""
    for name in ("green", "red"):
        shutil.copytree(tiny_clips / name, tmp_path / "data" / name)
    metrics = evaluate(predictor, str(tmp_path / "data"), "all", workers=0)
    assert metrics["top1"] == 1.0 and metrics["n"] == 20
    assert metrics["confusion"] == [[0, 0, 0], [0, 10, 0], [0, 0, 10]]
