"""B10: validation and test are one, and the best epoch is chosen on it (harvitronix, HHTseng)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.data import catalog, loading
from pipeline.model import checkpoint
from pipeline.stages import train as stage

CHOICES = {
    "another seed": {"seed": 3},
    "a balanced sampler": {"training__balance": "sampler", "training__batch_size": 5},
    "another model": {"recurrent__kind": "gru", "recurrent__hidden": 4, "video__frames": 3},
    "other views": {"augmentation__crop": 0.5, "augmentation__flip": 0.5},
}


def splits(folder: Path) -> dict[str, set[str]]:
    table = catalog.read(folder / "catalog.parquet")
    return {name: set(part["path"]) for name, part in table.groupby("split")}


@pytest.mark.parametrize("choice", CHOICES)
def test_no_choice_of_training_moves_a_clip(example: Any, make_config: Any, tmp_path: Path, choice: str) -> None:
    stage.train(make_config(**CHOICES[choice], training__epochs=1), tmp_path / "run")
    assert splits(tmp_path / "run") == splits(example.folder)
    mine, other = (checkpoint.load(folder / "best")[1].split for folder in (tmp_path / "run", example.folder))
    assert mine == other


def test_train_validation_and_test_share_no_clip_and_no_group(example: Any) -> None:
    parts = splits(example.folder)
    assert parts.keys() == {"train", "val", "test"}
    groups = [{Path(path).name.split("_")[2] for path in part} for part in parts.values()]
    assert all(not groups[i] & groups[j] for i in range(3) for j in range(i))


@pytest.mark.parametrize("frozen", [False, True])
def test_test_clips_are_read_once_and_only_after_the_last_epoch(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, frozen: bool
) -> None:
    changes = request.getfixturevalue("frozen_changes") if frozen else {}
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path / "cache"))
    read: list[str] = []
    fitted_after: list[int] = []
    load, fit = loading.load_clip, stage.fit

    def watched(path: str, *rest: Any) -> Any:
        read.append(path)
        return load(path, *rest)

    def fit_and_note(*arguments: Any) -> Any:
        result = fit(*arguments)
        fitted_after.append(len(read))
        return result

    monkeypatch.setattr(loading, "load_clip", watched)
    monkeypatch.setattr(stage, "fit", fit_and_note)
    monkeypatch.setattr(stage, "film_strips", lambda _, mistakes, __: [None] * len(mistakes))  # they are shown again
    stage.train(make_config(**changes), tmp_path / "run")
    parts = splits(tmp_path / "run")
    test = {path for path in parts["test"] if "c09" not in path}
    learning, final = read[: fitted_after[0]], read[fitted_after[0] :]
    assert len(test) == 12 and learning and not test & set(learning)
    assert sorted(path for path in final if path in test) == sorted(test)
    assert set(final) - test <= set(parts["val"])  # on which the temperature is fitted


def test_the_best_epoch_is_the_one_with_the_lowest_validation_loss(example: Any) -> None:
    card = checkpoint.load(example.folder / "best")[1]
    rows = json.loads((example.folder / "report/history.json").read_text())
    assert card.extra["epoch"] == min(rows, key=lambda row: row["val_loss"])["epoch"]
