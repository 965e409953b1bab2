"""Each look at the test split is noted: beside the checkpoint, which stays the same model, and in its MLflow run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CheckpointError, TrackingError
from pipeline.model import checkpoint, readings
from pipeline.model.readings import READINGS, TestReading, add, merged, read
from pipeline.stages.evaluate import evaluate
from pipeline.stages.evaluation import evaluate_and_record, find_run, report_folder
from pipeline.stages.models import load_model
from pipeline.stages.predict import Predictor
from pipeline.tracking.evaluations import READINGS_PLACE

TestReading.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it


def reading(number: int) -> TestReading:
    return TestReading(str(number), f"2026-01-0{number}T00:00:00", "evaluate", "d", 12, "top1", 0.5, "m")


@pytest.fixture
def copied(example: Any, tmp_path: Path) -> Path:
    """A copy of the example's training, for readings of its own."""
    shutil.copytree(example.folder, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    (tmp_path / "run/best" / READINGS).write_text(readings.as_json([reading(1)]))
    return tmp_path / "run"


def test_a_training_reads_its_test_split_once(make_config: Any, example: Any) -> None:
    first = read(example.folder / "best" / READINGS)[0]
    assert first.command == "train" and first.clips == example.result.test["n"]
    assert first.value == example.result.test["top1"] and first.score == "top1"
    assert first.model == checkpoint.digest(example.folder / "best")


def test_another_reading_is_added_and_the_model_stays_the_same(copied: Path) -> None:
    before = checkpoint.digest(copied / "best")
    metrics = evaluate(load_model(copied, "cpu"), None, command="evaluate --views 2")
    noted = read(copied / "best" / READINGS)
    assert [one.command for one in noted] == ["evaluate", "evaluate --views 2"] and noted[1].clips == 12
    assert [one["id"] for one in metrics["readings"]] == [one.id for one in noted]
    assert checkpoint.digest(copied / "best") == before
    checkpoint.check(copied / "best")


def test_other_clips_are_no_reading_of_the_test_split(copied: Path) -> None:
    assert "readings" not in evaluate(load_model(copied, "cpu"), None, "val")
    assert len(read(copied / "best" / READINGS)) == 1


def test_other_words_about_the_same_weights_keep_the_readings_and_other_weights_do_not(copied: Path) -> None:
    model, card = checkpoint.load(copied / "best")
    checkpoint.save(copied / "best", model.state_dict(), replace(card, metrics={"said": 1.0}))
    assert len(read(copied / "best" / READINGS)) == 1
    weights = {name: x + 1 if x.is_floating_point() else x for name, x in model.state_dict().items()}
    checkpoint.save(copied / "best", weights, card)
    assert read(copied / "best" / READINGS) == []


def test_a_damaged_list_is_named_and_the_evaluation_goes_on(copied: Path, capsys: Any) -> None:
    (copied / "best" / READINGS).write_text("[{")
    metrics = evaluate(load_model(copied, "cpu"), None)
    assert len(metrics["readings"]) == 1
    assert "readings.json is damaged" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="damaged"):
        read(copied / "best" / READINGS)


def test_readings_of_two_places_are_joined_in_their_order() -> None:
    assert merged([reading(3), reading(1)], [reading(1), reading(2)]) == [reading(1), reading(2), reading(3)]


def test_readings_are_added_and_the_folder_is_still_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    add(tmp_path / "model", [reading(2)])
    assert add(tmp_path / "model", [reading(1)]) == [reading(1), reading(2)]
    assert [path.name for path in (tmp_path / "model").iterdir()] == [READINGS]


def test_the_run_gets_report_numbers_and_readings(example: Any, copied: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(example.uri)
    run_id = example.result.run_id
    before = client.get_run(run_id)
    metrics = evaluate_and_record(load_model(copied, "cpu"), None, out=tmp_path / "test", track="yes")
    after = client.get_run(run_id)
    assert after.info.status == "FINISHED" and after.info.end_time == before.info.end_time
    assert after.data.metrics["evaluate/top1"] == metrics["top1"] and "evaluate/ece" in after.data.metrics
    assert int(after.data.tags["test.readings"]) == len(metrics["readings"]) >= 3  # train's, the copy's own, this one
    folder = max(item.path for item in client.list_artifacts(run_id, "evaluations") if item.is_dir)
    assert {"index.html", "metrics.json"} <= {Path(item.path).name for item in client.list_artifacts(run_id, folder)}
    kept = client.download_artifacts(run_id, READINGS_PLACE, str(tmp_path))
    assert [one["id"] for one in json.loads(Path(kept).read_text())] == [one["id"] for one in metrics["readings"]]


def test_a_report_has_a_place_of_its_own(copied: Path) -> None:
    predictor = load_model(copied, "cpu")
    assert report_folder(predictor, None, "test", False) == copied / "evaluation/test"
    assert report_folder(predictor, None, "val", True) == copied / "evaluation/val-shuffled"
    predictor.folder = None
    assert report_folder(predictor, None, "test", False) == Path("evaluation/tiny-test")


def test_a_store_that_is_not_there_costs_the_record_alone(predictor: Any, tmp_path: Path, capsys: Any) -> None:
    nowhere = f"sqlite:///{tmp_path}/none.db"
    assert find_run(predictor, "auto", nowhere) is None and find_run(predictor, "no", None) is None
    assert "not recorded in MLflow: no MLflow store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrackingError, match="no MLflow store"):
        find_run(predictor, "yes", nowhere)
    card = replace(predictor.card, extra={})
    with pytest.raises(TrackingError, match="without an MLflow run"):
        find_run(Predictor(predictor.model, card, predictor.device, ""), "yes", None)
