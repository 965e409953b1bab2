from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.cli import main
from pipeline.data import catalog
from pipeline.errors import DataError
from pipeline.model import checkpoint, readings
from pipeline.report.comparison import comparison_text, sentence, write_comparison
from pipeline.report.tracks import Track
from pipeline.stages.compare import _compared, clip_score, compare, unseen
from pipeline.stages.evaluate import Scored
from pipeline.stages.models import load_model
from pipeline.stages.predict import Prediction


@pytest.fixture(scope="module")
def confused(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's model with the names of its classes passed on by one: wrong where the other is right."""
    folder = tmp_path_factory.mktemp("confused") / "model"
    model, card = checkpoint.load(example.folder / "best")
    checkpoint.save(folder, model.state_dict(), replace(card, classes=[*card.classes[1:], card.classes[0]], extra={}))
    return folder


@pytest.fixture(scope="module")
def predictor(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example's model from a place of its own and without a run: each comparison is noted in both."""
    folder = tmp_path_factory.mktemp("good") / "model"
    model, card = checkpoint.load(example.folder / "best")
    checkpoint.save(folder, model.state_dict(), replace(card, extra={}))
    return load_model(folder, "cpu")


@pytest.fixture(scope="module")
def found(predictor: Any, confused: Path) -> dict[str, Any]:
    return compare(predictor, load_model(confused, "cpu"), names=("good", "bad"), workers=0)


def test_both_models_answer_to_the_test_clips_and_to_no_others(found: dict[str, Any], example: Any) -> None:
    test = example.result.test
    assert found["n"] == test["n"] and found["a"]["value"] == pytest.approx(test["top1"])
    table = catalog.read(example.folder / "catalog.parquet")
    learned = int(table["split"].isin(["train", "val"]).sum())
    assert found["left_out"] == {"a": 0, "b": 0, "both": learned}
    assert {one["path"] for one in found["failed"]} == set(
        table[(table["split"] == "test") & (table["status"] != "ok")]["path"]
    )


def test_the_look_at_the_test_split_is_noted(found: dict[str, Any], confused: Path) -> None:
    noted = readings.read(confused / readings.READINGS)
    assert noted[0].command == "compare with good" and noted[0].clips == found["n"] + len(found["failed"])


def test_the_better_one_is_found_and_every_clip_they_differ_on_is_named(found: dict[str, Any]) -> None:
    assert found["better"] == "a" and found["p"] < 0.05 and found["difference_low"] > 0
    counts = found["counts"]
    assert sum(counts.values()) == found["n"] == len(found["differ"])
    assert counts["both"] == 0  # the names of all answers differ
    right = [row["right"] for row in found["differ"]]
    assert (right.count("a"), right.count("b")) == (counts["only_a"], counts["only_b"])
    assert all((row["a"] == row["true"]) == (row["right"] == "a") for row in found["differ"])


def test_the_other_way_round_it_says_the_same(found: dict[str, Any], predictor: Any, confused: Path) -> None:
    other = compare(load_model(confused, "cpu"), predictor, names=("bad", "good"), workers=0)
    assert other["better"] == "b" and other["p"] == found["p"]
    assert other["difference"] == -found["difference"]
    assert other["difference_low"] == pytest.approx(-found["difference_high"])


def test_a_model_does_not_beat_itself(predictor: Any) -> None:
    found = compare(predictor, predictor, workers=0)
    assert (found["better"], found["p"], found["difference"], found["differ"]) == ("undecided", 1, 0, [])
    assert sentence(found).startswith("neither is better")


def test_clips_that_either_learned_from_are_left_out(example: Any) -> None:
    table = catalog.read(example.folder / "catalog.parquet")
    own = checkpoint.read_card(example.folder / "best").split
    nobody = {"train": own["test"][:3], "val": [], "test": []}
    chosen, counts = unseen(table, own, nobody)
    assert counts == {"a": len(own["train"]) + len(own["val"]), "b": 3, "both": 0}
    assert len(chosen) == len(own["test"]) - 3


def test_what_cannot_be_compared_says_why(predictor: Any, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {
        "train": [*predictor.card.split["train"], *predictor.card.split["test"]],
        "val": predictor.card.split["val"],
    }
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "card", replace(predictor.card, split=everything))
        with pytest.raises(DataError, match="learned from every clip there; name clips that neither saw"):
            compare(predictor, predictor, workers=0)
    other = SimpleNamespace(task="regression")
    with pytest.raises(DataError, match="A has the task label, B has regression"):
        compare(predictor, other, workers=0)  # type: ignore[arg-type]


def test_labels_and_numbers_over_time_count_where_they_are_known() -> None:
    times = np.arange(4.0)
    labels = Track("a", times, np.array([0, 1, -1, 2]), np.array([0, 2, 2, 2]), 4.0)
    assert clip_score("frame_label", labels) == (2, 3)
    numbers = Track("a", times, np.array([1.0, np.nan, 3.0, 0.0]), np.array([2.0, 5.0, 3.5, 0.0]), 4.0)
    assert clip_score("frame_regression", numbers) == (1.5, 3)


def test_errors_are_compared_as_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=30)
    predictions = [Prediction(f"{i}.mp4", None, values=true[i : i + 1]) for i in range(30)]
    groups = [f"g{i // 2}" for i in range(30)]
    parts = []
    for off in (0.1, 0.5):
        pairs = [(true[i : i + 1], true[i : i + 1] + off * (1 + i % 3)) for i in range(30)]
        tracks = [Track(f"{i}.mp4", np.zeros(1), *pair, 1.0) for i, pair in enumerate(pairs)]
        parts.append(Scored({"failed": []}, predictions, tracks, groups))
    names = [f"{i}.mp4" for i in range(30)]
    table = pd.DataFrame({"path": names, "status": "ok", "unit": groups, "start": np.nan, "end": np.nan})
    models: Any = [SimpleNamespace(task="regression", classes=[], digest=name) for name in "ab"]
    found = _compared(*models, ("small", "large"), table, parts) | {"left_out": {"a": 0, "b": 0, "both": 0}}
    assert (found["better"], found["p"], found["counts"], found["score"]) == ("a", None, None, "mae")
    assert found["difference"] == pytest.approx(-0.4 * 2) and len(found["differ"]) == 30
    write_comparison(found, tmp_path)
    assert "small is better" in comparison_text(found)


def test_the_folder_has_numbers_clips_and_a_picture(found: dict[str, Any], tmp_path: Path) -> None:
    write_comparison(found, tmp_path)
    assert json.loads((tmp_path / "compare.json").read_text())["better"] == "a"
    with (tmp_path / "differ.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["differ"]) and rows[0].keys() >= {"path", "true", "a", "b", "right"}
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    text = comparison_text(found)
    assert "good is better on" in text and "only A" in text


def test_the_command(predictor: Any, confused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", str(predictor.folder), str(confused), "--workers", "0", "--out", str(tmp_path / "out"), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["better"] == "a" and result["a"]["name"] == str(predictor.folder)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compare.json", "compare.png", "differ.csv"]
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(predictor.folder), "nowhere"])
    assert ended.value.code == 2 and "nowhere: no such checkpoint" in capsys.readouterr().err
