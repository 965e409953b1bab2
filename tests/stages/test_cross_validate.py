"""A cross-validation: a training per fold, every clip answered once by the model that never saw its group."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Config, TrackingConfig, flatten, to_dict
from pipeline.data import catalog
from pipeline.errors import CheckpointError, ConfigError, DataError, DistributedError, UserError
from pipeline.report.folds import fold_rows, folds_text
from pipeline.report.text import print_metrics
from pipeline.stages import cross_validate as stage
from pipeline.stages.cross_validate import CrossValidated, as_json, cross_validate
from pipeline.stages.evaluate import evaluate
from pipeline.stages.models import load_model
from pipeline.stages.train import train
from pipeline.tracking.store import connect

FOLDS = 3


@dataclass(frozen=True)
class Done:
    config: Config
    folder: Path
    result: CrossValidated


@pytest.fixture(scope="module")
def done(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One finished, tracked cross-validation on the tiny clips."""
    folder = tmp_path_factory.mktemp("folds")
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="tests")
    config = make_config(tracking=tracking, data__folds=FOLDS, training__epochs=1)
    return Done(config, folder / "run", cross_validate(config, folder / "run"))


def test_every_clip_is_answered_once_by_a_model_that_never_saw_its_group(done: Done) -> None:
    table = pd.read_parquet(done.folder / "report/predictions.parquet")
    assert len(table) == table["path"].nunique() == 35 and set(table["fold"]) == {1, 2, 3}
    assert done.result.pooled["n"] == 30 and done.result.pooled["expected"] == 35
    for fold, part in table.groupby("fold"):
        own = catalog.read(done.folder / f"fold-{fold}/catalog.parquet")
        assert sorted(own["path"][own["split"] == "test"]) == sorted(part["path"])
        assert not set(own["unit"][own["split"] != "test"]) & set(part["group"])
        digest = load_model(done.folder / f"fold-{fold}", "cpu").digest
        assert set(part["model"]) == {digest}


def test_the_pool_is_what_the_folds_said(done: Done) -> None:
    pooled, tests = done.result.pooled, [fold.test for fold in done.result.folds]
    assert pooled["confusion"] == np.sum([test["confusion"] for test in tests], axis=0).tolist()
    weights = [test["n"] for test in tests]
    for score in ("top1", "log_loss"):
        assert pooled[score] == pytest.approx(np.average([test[score] for test in tests], weights=weights))
    assert pooled["groups"] == 5 and len(pooled["failed"]) == 5
    table = pd.read_csv(done.folder / "report/predictions.csv")
    right = table["label"] == table["true_label"]
    assert right[table["status"] == "ok"].mean() == pytest.approx(pooled["top1"])


def test_each_fold_is_a_training_of_its_own_to_the_same_numbers(done: Done, tmp_path: Path) -> None:
    alone = replace(done.config, data=replace(done.config.data, fold=2), tracking=TrackingConfig(enabled=False))
    again = train(alone, tmp_path / "again")
    assert again.test == done.result.folds[1].test
    metrics = evaluate(load_model(done.folder / "fold-2", "cpu"), None)
    assert {key: metrics[key] for key in again.test} == again.test


def test_the_runs_are_nested_and_the_parent_has_the_pooled_numbers(done: Done) -> None:
    assert done.config.tracking.uri is not None and done.result.run_id is not None
    client = connect(done.config.tracking.uri)
    parent = client.get_run(done.result.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["data.folds"] == str(FOLDS)
    assert parent.data.metrics["test/top1"] == done.result.pooled["top1"]
    assert parent.data.metrics["folds/top1_mean"] == pytest.approx(
        np.mean([fold.test["top1"] for fold in done.result.folds])
    )
    steps = client.get_metric_history(done.result.run_id, "fold/top1")
    assert [(one.step, one.value) for one in steps] == [
        (number, fold.test["top1"]) for number, fold in enumerate(done.result.folds, 1)
    ]
    for fold in done.result.folds:
        assert fold.run_id is not None
        assert client.get_run(fold.run_id).data.tags["mlflow.parentRunId"] == done.result.run_id
    names = {Path(item.path).name for item in client.list_artifacts(done.result.run_id, "report")}
    assert names == {
        "metrics.json", "folds.csv", "predictions.csv", "predictions.parquet", "confusion.png", "per_class.png",
        "per_class.csv", "index.html",
    }  # fmt: skip


def test_the_table_tells_the_mean_of_the_folds_from_the_pool(done: Done) -> None:
    tests = [fold.test for fold in done.result.folds]
    rows = fold_rows(tests, done.result.pooled)
    assert [row["fold"] for row in rows] == ["1", "2", "3", "mean of folds", "deviation of folds", "pooled"]
    values = [test["top1"] for test in tests]
    assert rows[3]["top1"] == pytest.approx(np.mean(values)) and rows[4]["top1"] == pytest.approx(
        np.std(values, ddof=1)
    )
    assert rows[5]["top1"] == done.result.pooled["top1"] and rows[5]["n"] == 30
    text = folds_text(tests, done.result.pooled).splitlines()
    assert text[0].split() == ["fold", "clips", "groups", "top-1", "macro", "F1"]
    assert text[-1].startswith("pooled") and "30/35" in text[-1]
    written = pd.read_csv(done.folder / "report/folds.csv")
    assert written["fold"].tolist() == [row["fold"] for row in rows]
    assert json.loads((done.folder / "result.json").read_text()) == json.loads(json.dumps(as_json(done.result)))


def test_killed_it_goes_on_without_training_finished_folds_again(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = tmp_path / "run", done.config
    trained: list[str] = []

    def until_the_second(fold: Config, out: Path, parent: str | None = None) -> Any:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(fold.name)
        return train(fold, out, parent=parent)

    monkeypatch.setattr(stage, "train", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, folder)
    assert trained == ["tiny-fold-1"] and not (folder / "result.json").exists()
    state = json.loads((folder / "cross_validation.json").read_text())
    client = connect(str(config.tracking.uri))
    assert client.get_run(state["run_id"]).info.status == "KILLED"
    with pytest.raises(UserError, match=r"another training\.epochs"):
        cross_validate(replace(config, training=replace(config.training, epochs=2)), folder)
    with pytest.raises(UserError, match="holds a cross-validation"):
        train(config, folder)
    monkeypatch.setattr(stage, "train", train)
    result = cross_validate(config, folder, resume=True)
    assert "trained before" in capsys.readouterr().err
    assert result.pooled == done.result.pooled and result.run_id == state["run_id"]
    assert client.get_run(state["run_id"]).info.status == "FINISHED"
    with pytest.raises(UserError, match="finished"):
        cross_validate(config, folder)


def test_folds_that_were_trained_one_by_one_are_pooled(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in done.folder.glob("fold-*"):
        shutil.copytree(fold, tmp_path / fold.name)
    monkeypatch.setattr(stage, "train", None)
    config = replace(done.config, tracking=TrackingConfig(enabled=False))
    assert cross_validate(config, tmp_path).pooled == done.result.pooled
    for wrong, error in (({"val": 0.3}, UserError), ({"split_seed": 1}, UserError)):
        (tmp_path / "result.json").unlink()
        (tmp_path / "cross_validation.json").unlink()
        with pytest.raises(error, match="another data"):
            cross_validate(replace(config, data=replace(config.data, **wrong)), tmp_path)
        (tmp_path / "result.json").touch()
        (tmp_path / "cross_validation.json").touch()


def test_a_fold_of_other_clips_is_not_pooled(done: Done, tmp_path: Path, tiny_clips: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(tiny_clips, clips)
    config = replace(
        done.config, data=replace(done.config.data, root=str(clips)), tracking=TrackingConfig(enabled=False)
    )
    folder = tmp_path / "run"
    train(replace(config, data=replace(config.data, fold=1)), folder / "fold-1")
    table = catalog.read(folder / "fold-1" / "catalog.parquet")
    Path(table["path"][(table["split"] == "test") & (table["status"] == "ok")].iloc[0]).unlink()
    with pytest.raises(DataError, match="data changed"):
        cross_validate(config, folder)


def test_numbers_over_time_are_pooled_too(make_config: Any, tmp_path: Path) -> None:
    from pipeline.data.demo import write_demo

    write_demo(tmp_path / "demo", 4, 0, task="frame_regression")
    config = make_config(data__root=str(tmp_path / "demo"), data__folds=2, task="frame_regression", training__epochs=1)
    result = cross_validate(config, tmp_path / "run")
    tests = [fold.test for fold in result.folds]
    assert result.pooled["moments"] == sum(test["moments"] for test in tests)
    assert result.pooled["mae"] == pytest.approx(
        np.average([test["mae"] for test in tests], weights=[test["moments"] for test in tests])
    )
    assert "MAE" in folds_text(tests, result.pooled).splitlines()[0] and print_metrics(result.pooled)
    table = pd.read_parquet(tmp_path / "run/report/predictions.parquet")
    assert len(table) == result.pooled["expected"] and {"fold", "values"} <= set(table.columns)


def test_what_is_no_cross_validation_is_refused(
    done: Done, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"needs data\.folds"):
        cross_validate(make_config(), tmp_path)
    with pytest.raises(ConfigError, match=r"name one of them with data\.fold"):
        train(make_config(data__folds=3), tmp_path / "one")
    with pytest.raises(CheckpointError, match="model per fold"):
        load_model(done.folder)
    with pytest.raises(CheckpointError, match="no unfinished cross-validation"):
        cross_validate(make_config(data__folds=3), tmp_path / "nothing", resume=True)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DistributedError, match=r"data\.fold.*torchrun"):
        cross_validate(make_config(data__folds=3), tmp_path / "several")


def test_a_last_model_learns_from_all_clips_and_is_not_tested(make_config: Any, tmp_path: Path) -> None:
    result = train(make_config(data__test=0.0, training__epochs=1), tmp_path / "all")
    assert result.test == {}
    table = catalog.read(tmp_path / "all/catalog.parquet")
    assert set(table["split"]) == {"train", "val"}
    assert flatten(to_dict(make_config(data__test=0.0)))["data.test"] == 0
