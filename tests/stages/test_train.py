from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from safetensors.torch import load_file

from pipeline.config import TrackingConfig, flatten, to_dict
from pipeline.data import catalog
from pipeline.errors import CheckpointError, ConfigError, DataError, UserError
from pipeline.model import checkpoint
from pipeline.stages import fit, inside, keeper, sources, train
from pipeline.stages.resume import read_state
from pipeline.tracking.download import download
from pipeline.tracking.store import connect

EPOCH_METRICS = {"train/loss", "val/loss", "val/top1", "train/learning_rate", "train/gradient_norm", "time/epoch"}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, two: Path) -> bool:
    a, b = tensors(one), tensors(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def history(folder: Path) -> list[dict[str, float]]:
    """The numbers of each epoch, without the time it took."""
    rows = json.loads((folder / "report" / "history.json").read_text())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_result_names_checkpoint_run_and_an_honest_test(example: Any) -> None:
    result = example.result
    assert result.checkpoint == str(example.folder / "best") and result.folder == str(example.folder)
    assert result.test["n"] == 12 and result.test["expected"] == 14 and result.test["coverage"] == 12 / 14
    assert result.test["top1"] == 1.0 and 0 < result.test["top1_low"] < result.test["top1_high"] == 1.0
    assert {"macro_f1", "macro_f1_low", "macro_f1_high", "top5", "per_class", "confusion"} <= result.test.keys()
    assert result.test["groups"] == 2 and len(result.test["failed"]) == 2
    assert all(one["path"].endswith("c09.mp4") and one["reason"] == "not a video" for one in result.test["failed"])


def test_the_folder_holds_all_there_is_to_know(example: Any) -> None:
    names = {str(path.relative_to(example.folder)) for path in example.folder.rglob("[!.]*") if path.is_file()}
    names = {name for name in names if not name.startswith("evaluation/")}  # of other tests
    pictures = {f"report/{name}.png" for name in ("calibration", "confusion", "curves", "inside", "per_class", "risk")}
    tables = {"report/metrics.json", "report/per_class.csv", "report/history.json", "report/skipped.json"}
    tables |= {"report/inside.json", "report/index.html", "best/readings.json"}
    tables |= {"report/steps.csv", "report/time.csv"}
    models = {f"{kind}/model.{suffix}" for kind in ("best", "last") for suffix in ("safetensors", "json")}
    assert names == pictures | tables | models | {"catalog.parquet", "config.yaml", "result.json"}
    assert yaml.safe_load((example.folder / "config.yaml").read_text()) == to_dict(example.config)
    skipped = json.loads((example.folder / "report/skipped.json").read_text())
    assert len(skipped) == 5 and all(item["reason"] == "not a video" for item in skipped)
    written = json.loads((example.folder / "result.json").read_text())
    assert written["test"]["top1"] == 1.0 and written["run_id"] == example.result.run_id


def test_checkpoints_carry_split_classes_and_measurements(example: Any) -> None:
    _, best = checkpoint.load(example.folder / "best")
    _, last = checkpoint.load(example.folder / "last")
    assert best.classes == last.classes == ["blue", "green", "red"]
    table = catalog.read(example.folder / "catalog.parquet")
    assert [len(best.split[name]) for name in ("train", "val", "test")] == [14, 7, 14]
    test = table[(table["split"] == "test") & (table["status"] == "ok")]
    assert {digest[:24] for digest in test["digest"]} < set(best.split["test"])
    assert best.metrics["test"]["top1"] == 1.0 and best.extra["run_id"] == example.result.run_id
    rows = history(example.folder)
    chosen = min(rows, key=lambda row: row["val_loss"])
    assert best.extra["epoch"] == chosen["epoch"] and best.metrics["val_loss"] == chosen["val_loss"]
    assert last.extra["epoch"] == 3


def test_the_run_is_finished_with_parameters_tags_and_every_epoch(example: Any) -> None:
    client = connect(example.uri)
    run = client.get_run(example.result.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "tiny"
    assert run.data.params == {key: str(value) for key, value in flatten(to_dict(example.config)).items()}
    assert len(run.data.tags["dataset.digest"]) == len(run.data.tags["split.digest"]) == 64
    assert run.data.tags["version.torch"] == metadata.version("torch")
    rows = history(example.folder)
    for name in EPOCH_METRICS:
        recorded = client.get_metric_history(example.result.run_id, name)
        assert [entry.step for entry in recorded] == [1, 2, 3]
    losses = [entry.value for entry in client.get_metric_history(example.result.run_id, "val/loss")]
    assert losses == [row["val_loss"] for row in rows]
    assert run.data.metrics["test/top1"] == 1.0 and run.data.metrics["test/coverage"] == 12 / 14


def test_what_was_seen_inside_is_in_the_run_and_in_the_report(example: Any) -> None:
    client = connect(example.uri)
    readings = json.loads((example.folder / "report/inside.json").read_text())
    assert [reading["epoch"] for reading in readings] == [1, 2, 3]
    assert [len(reading["layers"]) for reading in readings] == [1, 0, 1]  # four updates an epoch: first and last
    assert len(readings[0]["layers"]["layer0"]["gradient"]) == 4
    assert 0.05 < readings[0]["seconds_per_step"] < 0.5
    values = inside.metrics(readings[2])
    assert {
        "gates/layer0/forget_mean",
        "gates/layer0/half_life_seconds",
        "gradients/layer0/first_step",
    } <= values.keys()
    assert {"updates/encoder", "updates/recurrent.layer0", "updates/output", "val/answers_share"} <= values.keys()
    for name, value in values.items():
        entry = client.get_metric_history(example.result.run_id, name)[-1]
        assert (entry.step, entry.value) == (3, pytest.approx(value))
    assert not [tag for tag in client.get_run(example.result.run_id).data.tags if tag.startswith("warning.")]


def test_a_warning_is_said_and_becomes_a_tag(
    make_config: Any, example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An update as large as this closes gates for good."""
    config = make_config(
        tracking=TrackingConfig(uri=example.uri, experiment="warnings"), training__epochs=4, training__warmup=0.0,
        training__learning_rate=20.0,
    )  # fmt: skip
    result = train.train(config, tmp_path / "run")
    tags = connect(example.uri).get_run(result.run_id).data.tags
    warnings = {name.removeprefix("warning."): text for name, text in tags.items() if name.startswith("warning.")}
    assert "one_answer" in warnings
    said = capsys.readouterr().err
    assert all(said.count(f"warning: {text}") == 1 for text in warnings.values())


def test_looking_inside_changes_no_number(
    example: Any, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside.Inside, "_look", lambda _: {})
    monkeypatch.setattr(fit, "probe_batch", lambda *_: None)
    monkeypatch.setattr(torch.optim.AdamW, "register_step_pre_hook", lambda *_: None)
    monkeypatch.setattr(torch.optim.AdamW, "register_step_post_hook", lambda *_: None)
    train.train(make_config(training__epochs=3), tmp_path / "blind")
    readings = json.loads((tmp_path / "blind/report/inside.json").read_text())
    assert all(not reading["layers"] and not reading["updates"] for reading in readings)
    assert history(tmp_path / "blind") == history(example.folder)
    for kind in ("best", "last"):
        assert same(tmp_path / "blind" / kind, example.folder / kind)


def test_the_run_holds_its_model_report_and_the_skipped_files(example: Any, tmp_path: Path) -> None:
    client = connect(example.uri)
    (tmp_path / "run").mkdir()
    folder = Path(client.download_artifacts(example.result.run_id, "", str(tmp_path / "run")))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"report/confusion.png", "report/curves.png", "report/per_class.csv"} <= names
    assert {"data/skipped.json", "data/catalog.parquet", "config.yaml", "data/summary.json"} <= names
    skipped = json.loads((folder / "data/skipped.json").read_text())
    assert sorted(Path(item["path"]).name for item in skipped) == [f"v_blue_g0{i}_c09.mp4" for i in range(1, 6)]
    model = download(f"runs:/{example.result.run_id}", tmp_path / "model", example.config.tracking)
    assert checkpoint.digest(model) == checkpoint.digest(example.folder / "best")
    assert "checkpoint/model.safetensors" not in names  # the model has it, and the run no second copy


def test_nothing_is_left_of_the_state_to_resume(example: Any) -> None:
    assert read_state(example.folder) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_one_seed_one_result_whatever_the_number_of_workers(
    example: Any, make_config: Any, tmp_path: Path, workers: int
) -> None:
    config = make_config(training__epochs=3, training__workers=workers)
    result = train.train(config, tmp_path / "again")
    assert multiprocessing.active_children() == []
    assert result.test == example.result.test
    assert history(tmp_path / "again") == history(example.folder)
    for kind in ("best", "last"):
        assert same(tmp_path / "again" / kind, example.folder / kind)
    assert result.run_id is None


def test_another_seed_gives_another_model_scored_on_the_same_clips(
    example: Any, make_config: Any, tmp_path: Path
) -> None:
    train.train(make_config(seed=1, training__epochs=1), tmp_path / "other")
    assert not same(tmp_path / "other" / "best", example.folder / "best")
    mine, other = (checkpoint.load(folder / "best")[1].split for folder in (example.folder, tmp_path / "other"))
    assert mine == other


def test_a_frozen_encoder_gives_one_result_from_an_empty_and_from_a_filled_store(
    make_config: Any, frozen_changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path / "cache"))
    config = make_config(**frozen_changes)
    first = train.train(config, tmp_path / "first")
    second = train.train(replace(config, training=replace(config.training, workers=2)), tmp_path / "second")
    assert first.test == second.test and history(tmp_path / "first") == history(tmp_path / "second")
    assert same(tmp_path / "first/best", tmp_path / "second/best")


@pytest.mark.parametrize(
    "changes",
    [
        {"video__streams": "flow", "flow__size": 32, "flow__grid": 2, "training__balance": "weights"},
        {"video__streams": "difference", "difference__size": 32, "difference__grid": 2},
        {"video__streams": "rgb+flow", "flow__size": 32, "flow__form": "image", "training__balance": "sampler"},
        {"video__sampling": "rate", "recurrent__kind": "none", "recurrent__pooling": "mean", "data__val": 0.0},
    ],
)
def test_the_other_ways_end_with_a_tested_model_too(make_config: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    result = train.train(make_config(**changes, training__epochs=1), tmp_path / "run")
    assert result.test["n"] == 12 and result.test["coverage"] == 12 / 14
    assert ("val_loss" in history(tmp_path / "run")[0]) == ("data__val" not in changes)


def test_training_stops_when_validation_no_longer_improves(make_config: Any, tmp_path: Path) -> None:
    config = make_config(training__epochs=40, training__patience=2, training__learning_rate=0.3)
    train.train(config, tmp_path / "run")
    rows = history(tmp_path / "run")
    best = min(rows, key=lambda row: row["val_loss"])["epoch"]
    assert len(rows) < 40 and len(rows) == best + 2
    assert checkpoint.load(tmp_path / "run/best")[1].extra["epoch"] == best


def test_a_finished_folder_is_replaced_only_on_request(example: Any, make_config: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"finished training.*--fresh"):
        train.train(example.config, example.folder)
    with pytest.raises(UserError, match="finished training"):
        train.train(example.config, example.folder, resume=True)
    config = make_config(training__epochs=1)
    train.train(config, tmp_path / "run")
    (tmp_path / "run" / "my notes.txt").write_text("keep")
    train.train(replace(config, seed=5), tmp_path / "run", fresh=True)
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["seed"] == 5
    assert (tmp_path / "run" / "my notes.txt").read_text() == "keep"


def test_without_a_folder_the_next_free_one_is_taken(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config(training__epochs=1)
    assert [train.train(config).folder for _ in range(2)] == ["runs/tiny", "runs/tiny-2"]


def test_there_must_be_something_to_resume(make_config: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no unfinished training"):
        train.train(make_config(), tmp_path / "run", resume=True)


def test_a_loss_that_is_no_number_says_what_to_lower_and_marks_the_run(
    make_config: Any, example: Any, tmp_path: Path
) -> None:
    config = make_config(
        tracking=TrackingConfig(uri=example.uri, experiment="nan"), training__learning_rate=1e30, training__epochs=4
    )
    with pytest.raises(DataError, match=r"loss is not a number in epoch \d; lower training.learning_rate") as error:
        train.train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("nan").experiment_id])
    assert run.info.status == "FAILED" and "not a number" in run.data.tags["failure"]


@pytest.mark.parametrize("save_seconds", [0.0, 1000.0])
def test_an_interrupted_training_loses_the_unfinished_epoch_alone_and_ends_where_it_would_have(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_seconds: float
) -> None:
    """Ctrl-C in the third epoch, the ones before on disk or in memory; then the same command, and one with other
    options.
    """
    name = f"interrupted {save_seconds}"
    config = replace(example.config, tracking=TrackingConfig(uri=example.uri, experiment=name))
    read = sources.FileSource.batches

    def interrupted(self: Any, epoch: int, order: Any, *rest: Any) -> Any:
        for number, batch in enumerate(read(self, epoch, order, *rest)):
            if epoch == 2 and number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(sources.FileSource, "batches", interrupted)
        patch.setattr(keeper, "SAVE_SECONDS", save_seconds)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, tmp_path / "run")
    client = connect(example.uri)
    experiment = [client.get_experiment_by_name(name).experiment_id]
    (run,) = client.search_runs(experiment)
    state = read_state(tmp_path / "run")
    assert run.info.status == "KILLED" and state is not None and state.epoch == 2
    assert checkpoint.load(tmp_path / "run/best")[1].extra["epoch"] == 2

    with pytest.raises(UserError, match=r"another training\.batch_size; .*--fresh"):
        train.train(replace(config, training=replace(config.training, batch_size=3)), tmp_path / "run")
    result = train.train(config, tmp_path / "run", resume=True)
    (run,) = client.search_runs(experiment)
    assert run.info.status == "FINISHED" and run.info.run_id == result.run_id
    assert "failure" not in run.data.tags
    assert [entry.step for entry in client.get_metric_history(run.info.run_id, "val/loss")] == [1, 2, 3]
    assert result.test == example.result.test and history(tmp_path / "run") == history(example.folder)
    assert same(tmp_path / "run/best", example.folder / "best")
    assert (tmp_path / "run/report/inside.json").read_text() == (example.folder / "report/inside.json").read_text()


def test_what_cannot_work_is_refused_before_anything_is_decoded(make_config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="frozen encoder without weights"):
        train.train(make_config(encoder__frozen=True), tmp_path / "run")
    with pytest.raises(UserError, match="resnet19"):
        train.train(make_config(encoder__name="resnet19"), tmp_path / "run")
    with pytest.raises(ConfigError, match="device 'gpu'"):
        train.train(make_config(training__device="gpu"), tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        train.train(make_config(), tmp_path / "file" / "run")
    assert not (tmp_path / "run").exists()


def test_one_class_is_nothing_to_tell_apart(make_config: Any, tiny_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "red").symlink_to(tiny_clips / "red")
    with pytest.raises(DataError, match="the one class 'red'"):
        train.train(make_config(data__root=str(tmp_path / "data")), tmp_path / "run")


def test_fresh_replaces_a_finished_model_only_when_nothing_else_is_wrong(example: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(example.folder, folder)
    wrong = replace(example.config, data=replace(example.config.data, root=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="does not exist"):
        train.train(wrong, folder, fresh=True)
    assert checkpoint.load(folder / "best")[1].classes == ["blue", "green", "red"]


def test_two_trainings_in_one_folder_are_refused(example: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another training is running"):
        train.train(example.config, folder)


def test_no_password_of_a_store_is_kept(example: Any, tmp_path: Path) -> None:
    hidden = TrackingConfig(enabled=False, uri="postgresql://someone:hunter2@host/db")
    train.train(replace(example.config, tracking=hidden), tmp_path / "run")
    kept = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(kept) > 8
    assert not [path.name for path in kept if b"hunter2" in path.read_bytes()]


def test_chrono_biases_reach_as_far_as_the_longest_training_clip(
    make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(training__epochs=1, recurrent__initialisation="chrono")
    train.train(config, tmp_path / "run")
    assert "gaps of up to 4 steps" in capsys.readouterr().err  # video.frames; the clips are longer
    train.train(replace(config, video=replace(config.video, sampling="rate", fps=2.0)), tmp_path / "slow")
    table = catalog.read(tmp_path / "slow" / "catalog.parquet")
    longest = table[table["split"] == "train"]["duration"].max()
    assert f"gaps of up to {int(np.ceil(longest * 2))} steps" in capsys.readouterr().err


def test_a_test_left_for_later_gives_what_it_would_have_given(example: Any, tmp_path: Path) -> None:
    config = replace(example.config, tracking=TrackingConfig(uri=example.uri, experiment="later"))
    trained = train.train(config, tmp_path / "run", test=False)
    client = connect(example.uri)
    assert trained.test == {} and "test" not in checkpoint.load(tmp_path / "run/best")[1].metrics
    assert not [name for name in client.get_run(trained.run_id).data.metrics if name.startswith("test/")]
    assert not (tmp_path / "run/report/metrics.json").exists()
    assert client.get_run(trained.run_id).info.status == "FINISHED"

    assert train.test_trained(config, tmp_path / "run") == example.result.test
    run, wanted = (client.get_run(run_id) for run_id in (trained.run_id, example.result.run_id))
    assert run.info.status == "FINISHED" and run.data.metrics["test/top1"] == wanted.data.metrics["test/top1"]
    assert sorted(path.name for path in (tmp_path / "run").rglob("[!.]*")) == sorted(
        path.name for path in example.folder.rglob("[!.]*")
    )
    metrics = [checkpoint.load(folder / "best")[1].metrics for folder in (tmp_path / "run", example.folder)]
    assert metrics[0] == metrics[1]
    assert train.test_trained(config, tmp_path / "run") == example.result.test  # it is there already


def test_a_training_that_is_given_up_did_not_fail(example: Any, tmp_path: Path) -> None:
    config = replace(example.config, tracking=TrackingConfig(uri=example.uri, experiment="given up"))
    rows = []

    def give_up(row: dict[str, float], _: Any) -> None:
        rows.append(row)
        if row["epoch"] == 2:
            raise train.Pruned("after epoch 2")

    with pytest.raises(train.Pruned):
        train.train(config, tmp_path / "run", on_epoch=give_up)
    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("given up").experiment_id])
    assert run.info.status == "KILLED" and run.data.tags["pruned"] == "after epoch 2"
    assert "failure" not in run.data.tags and len(rows) == 2
    with pytest.raises(train.Pruned):  # a training that goes on asks again, before it does
        train.train(config, tmp_path / "run", on_epoch=give_up)
    assert [row["epoch"] for row in rows] == [1, 2, 2] and rows[1] == rows[2]
    assert [entry.step for entry in client.get_metric_history(run.info.run_id, "val/loss")] == [1, 2]
