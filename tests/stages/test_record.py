from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.model import checkpoint
from pipeline.stages import record
from pipeline.stages.classify import classify
from pipeline.stages.classify_run import EXPERIMENT, classify_tracked, inputs_digest
from pipeline.stages.epoch_clock import POINTS, EpochClock, StepRecord
from pipeline.stages.reference import drifts, quantile_bins
from pipeline.tracking.delivery import NOTE
from pipeline.tracking.store import connect


def test_a_training_says_what_it_read_and_how_long_its_parts_took(example: Any) -> None:
    client = connect(example.uri)
    run = client.get_run(example.result.run_id)
    found = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    assert set(found) == {"train", "val", "test"} and {one.name for one in found.values()} == {"clips"}
    profile = json.loads(found["test"].profile)
    assert (profile["clips"], profile["failed"]) == (12, 2) and sum(profile["classes"].values()) == 12
    metrics = run.data.metrics
    assert {f"time/{name}" for name in ("ingest", "extract", "fit", "test", "report", "publish")} <= metrics.keys()
    parts = [metrics[f"time/{name}"] for name in record.PARTS]
    assert sum(parts) == pytest.approx(metrics["time/epoch"], rel=0.2) and min(parts) > 0
    assert 0 < metrics["time/decode_share"] < 1
    assert "system/cpu_utilization_percentage" in metrics
    steps = client.get_metric_history(example.result.run_id, "step/loss")
    assert [point.step for point in steps] == list(range(1, 10))  # 12 readable clips, 4 a batch, 3 epochs
    written = list(csv.DictReader((example.folder / "report/steps.csv").open()))
    assert [float(row["loss"]) for row in written] == [point.value for point in steps]
    note = run.data.tags[NOTE]
    assert "30 clips (12 train, 6 val, 12 test), 5 files left out" in note and " s (" in note and "fit " in note


def test_a_default_run_stays_within_its_budget_and_the_rest_comes_on_request(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "log_model", lambda _, run: run.places.append("model"))

    class Sent:
        def __init__(self) -> None:
            self.places: list[str] = []

        def artifact(self, path: Path, place: str) -> None:
            self.places.append(f"{place}/{Path(path).name}" if Path(path).is_file() else place)

    default, everything = Sent(), Sent()
    record.publish(default, example.folder, "default")  # type: ignore[arg-type]
    record.publish(everything, example.folder, "all")  # type: ignore[arg-type]
    assert set(default.places) == {"model", "report", "data/catalog.parquet"}  # figures outweigh this tiny model
    assert set(everything.places) == {"model", "report", "data/catalog.parquet", record.LAST_FOLDER}
    # a model beside which figures weigh nothing: the last checkpoint is another one than the best
    folder = tmp_path / "large"
    for name, epoch in (("best", 1), ("last", 2)):
        model, card = checkpoint.load(example.folder / "best")
        checkpoint.save(folder / name, model.state_dict(), replace(card, extra={"epoch": epoch}))
        with (folder / name / "model.safetensors").open("ab") as file:
            file.truncate(5_000_000)
    (folder / "report").mkdir()
    (folder / "catalog.parquet").write_bytes((example.folder / "catalog.parquet").read_bytes())
    large = Sent()
    record.publish(large, folder, "default")  # type: ignore[arg-type]
    assert record.LAST_FOLDER in large.places


def test_the_moments_of_all_frames_stay_behind(example: Any, tmp_path: Path) -> None:
    import pandas as pd

    client = connect(example.uri)
    path = client.download_artifacts(example.result.run_id, "data/catalog.parquet", str(tmp_path))
    sent, whole = pd.read_parquet(path), pd.read_parquet(example.folder / "catalog.parquet")
    assert "times" not in sent and "times" in whole
    pd.testing.assert_frame_equal(sent, whole.drop(columns="times"))


def test_the_clock_divides_an_epoch_and_leaves_no_hook(predictor: Any) -> None:
    model = predictor.model
    before = [len(one._forward_hooks) for one in model.modules()]
    clock = EpochClock(model, torch.device("cpu"))
    with clock.training():
        for _ in clock.waiting(range(2)):
            features = model.encode({"rgb": torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)}, torch.tensor([2]))
            model.branch_logits(features, torch.tensor([2]))
    seconds = clock.seconds()
    assert tuple(seconds) == record.PARTS and seconds["encoder"] > 0 and seconds["head"] > 0
    assert [len(one._forward_hooks) for one in model.modules()] == before


def test_a_long_training_keeps_so_many_steps_and_no_infinite_number() -> None:
    kept = StepRecord(0, 25 * POINTS)
    for _ in range(25 * POINTS):
        kept.note(1.0, float("inf"), 1e-3)
    assert len(kept.rows) == POINTS and kept.rows[0] == [25, 1.0, None, 1e-3]


@pytest.fixture(scope="module")
def classified(example: Any, predictor: Any, tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of an archive in which all clips are red, but one that is no video."""
    folder = tmp_path_factory.mktemp("archive")
    for clip in sorted((tiny_clips / "red").iterdir()):
        (folder / clip.name).write_bytes(clip.read_bytes())
    (folder / "bad.mp4").write_bytes(b"no video")
    result = classify_tracked(
        lambda: classify(predictor, [folder], workers=0), predictor, "runs:/x", [folder], example.uri
    )
    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id], "tags.stage = 'classify'")
    return result, run, folder


def test_a_classification_is_a_run_that_says_what_failed_and_that_labels_drift(
    classified: Any, example: Any, tmp_path: Path
) -> None:
    result, run, _ = classified
    assert run.info.status == "FINISHED" and (result.ok, result.failed) == (10, 1)
    metrics, tags = run.data.metrics, run.data.tags
    assert metrics["classify/ok"] == 10 and metrics["failed/not a video"] == 1 and metrics["labels/red"] == 10
    assert metrics["classify/files_per_second"] > 0
    assert metrics["drift/labels_psi"] > 0.2 and metrics["drift/labels_drift"] == 1
    assert "labels: not as in the training clips" in tags["warning.drift"]
    assert tags["model.run_id"] == example.result.run_id and len(tags["inputs.digest"]) == 64
    assert run.inputs.dataset_inputs[0].dataset.digest == tags["inputs.digest"][:16]
    client = connect(example.uri)
    names = {Path(item.path).name for item in client.list_artifacts(run.info.run_id, "report")}
    assert names == {"results.csv", "failed.csv", "labels.csv", "drift.json", "drift.png"}


def test_the_models_own_test_clips_are_no_drift(example: Any, predictor: Any) -> None:
    table = [{"status": "ok", "label": name, "probability": 0.9} for name in ("red", "green", "blue") for _ in range(4)]
    reference = json.loads((example.folder / "best/model.json").read_text())["extra"]["reference"]
    assert sum(reference["train"]["labels"].values()) == 12 and sum(reference["test"]["confidence"]["counts"]) == 12
    assert not drifts(reference, table)[0]["drift"]
    assert drifts({}, table) == [] and drifts(reference, [{"status": "not a video"}]) == []


def test_numbers_are_compared_with_those_of_the_training_clips() -> None:
    reference = {"train": {"values": quantile_bins(range(100))}, "test": {"values": quantile_bins(range(100))}}
    alike = [{"status": "ok", "value": float(x)} for x in range(0, 100, 2)]
    large = [{"status": "ok", "value": 95.0 + x / 50} for x in range(50)]
    over_time = [{"status": "ok", "values": [{"time": 0.0, "value": 99.0}, {"time": 1.0, "value": 97.0}]}] * 30
    assert [part["drift"] for part in drifts(reference, alike)] == [False]
    assert [part["drift"] for part in drifts(reference, large)] == [True]
    assert [part["drift"] for part in drifts(reference, over_time)] == [True]


def test_a_model_that_always_prefers_one_class_is_no_drift() -> None:
    """On its test clips it does the same."""
    reference = {"train": {"labels": {"a": 50, "b": 50}}, "test": {"labels": {"a": 48, "b": 2}}}
    rows = [{"status": "ok", "label": "a", "probability": 0.6}] * 60 + [
        {"status": "ok", "label": "b", "probability": 0.6}
    ] * 3
    (part,) = drifts(reference, rows)
    assert part["psi"] > 0.2 and part["chance"] < 0.01 and not part["drift"]


def test_what_was_classified_has_one_digest_wherever_it_lies(classified: Any, tmp_path: Path) -> None:
    folder = classified[2]
    paths = [str(path) for path in sorted(folder.iterdir())]
    moved = []
    for path in reversed(paths):
        moved.append(str(tmp_path / f"other {Path(path).name}"))
        Path(moved[-1]).write_bytes(Path(path).read_bytes())
    assert inputs_digest(moved) == inputs_digest(paths)
    Path(moved[0]).write_bytes(b"another")
    assert inputs_digest(moved) != inputs_digest(paths)
    assert len(inputs_digest(["s3://bucket/clip.mp4", str(tmp_path)])) == 64


def test_a_classification_that_fails_is_a_failed_run(example: Any, predictor: Any, tmp_path: Path) -> None:
    from pipeline.errors import DataError

    with pytest.raises(DataError):
        classify_tracked(
            lambda: classify(predictor, [tmp_path / "gone"]),
            predictor,
            "m",
            [tmp_path / "gone"],
            example.uri,
            "failing",
        )
    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("failing").experiment_id])
    assert run.info.status == "FAILED" and "gone" in run.data.tags["failure"]
