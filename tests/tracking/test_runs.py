from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, TrackingConfig, flatten, to_dict
from pipeline.errors import TrackingError
from pipeline.tracking import runs
from pipeline.tracking.store import connect, store_uri


def found(config: TrackingConfig, run: runs.Run) -> Any:
    assert run.run_id is not None
    run.send()
    return connect(store_uri(config)).get_run(run.run_id)


def history(config: TrackingConfig, run: runs.Run, metric: str) -> list[tuple[int, float]]:
    assert run.run_id is not None
    run.send()
    entries = connect(store_uri(config)).get_metric_history(run.run_id, metric)
    return sorted((entry.step, entry.value) for entry in entries)


def test_a_run_holds_everything(store: TrackingConfig, tmp_path: Path) -> None:
    (tmp_path / "figure.png").write_bytes(b"png")
    run = runs.start(store, "first")
    flat = flatten(to_dict(Config()))
    run.params(flat)
    run.tags({"split": "abc", "skipped": 2})
    run.metrics({"val.loss": 0.5, "val.top1": 0.25}, step=1)
    run.metrics({"val.loss": 0.25}, step=2)
    run.text("a: 1\n", "config.yaml")
    run.artifact(tmp_path / "figure.png", "figures")
    kept = found(store, run)
    run.finish()
    client = connect(store_uri(store))
    assert client.get_run(run.run_id or "").info.status == "FINISHED"
    assert kept.info.run_name == "first"
    assert kept.data.params == {key: str(value) for key, value in flat.items()}
    assert kept.data.tags["split"] == "abc"
    assert kept.data.tags["skipped"] == "2"
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id or "", "val.loss")] == [(1, 0.5), (2, 0.25)]
    root = connect(store_uri(store)).download_artifacts(run.run_id or "", "", str(tmp_path))
    assert (Path(root) / "config.yaml").read_text() == "a: 1\n"
    assert (Path(root) / "figures" / "figure.png").read_bytes() == b"png"


def test_artifacts_lie_beside_the_database_wherever_the_command_ran(
    store: TrackingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    run = runs.start(store, "elsewhere")
    run.text("hello", "note.txt")
    run.finish()
    database = Path((store.uri or "").removeprefix("sqlite:///"))
    assert len(list((database.parent / "mlruns").glob(f"*/{run.run_id}/artifacts/note.txt"))) == 1
    assert list((tmp_path / "there").iterdir()) == []


def test_values_longer_than_mlflow_takes_are_cut(store: TrackingConfig) -> None:
    run = runs.start(store, "long")
    run.params({"long": "x" * 7000, **{f"p{index}": index for index in range(250)}})
    run.tags({"long": "y" * 9000})
    run.metrics({f"m{index}": index for index in range(1200)}, step=0)
    kept = found(store, run)
    assert kept.data.params["long"] == "x" * 6000
    assert len(kept.data.params) == 251
    assert kept.data.tags["long"] == "y" * 8000
    assert len(kept.data.metrics) == 1200


def test_a_loss_that_is_not_a_number_is_kept(store: TrackingConfig) -> None:
    run = runs.start(store, "nan")
    run.metrics({"loss": math.nan}, step=1)
    assert math.isnan(history(store, run, "loss")[0][1])


def test_passwords_do_not_reach_the_store(store: TrackingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "postgresql://me:s3cret@host/db"
    monkeypatch.setattr(sys, "argv", ["/bin/video-lstm", "train", "a b.yaml", "--tracking.uri", address])
    run = runs.start(store, "secret")
    run.params({"tracking.uri": address})
    data = found(store, run).data
    assert data.params["tracking.uri"] == "postgresql://me:***@host/db"
    assert data.tags["mlflow.source.name"] == ("video-lstm train 'a b.yaml' --tracking.uri postgresql://me:***@host/db")


def test_source_tags_with_and_without_a_repository(
    store: TrackingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    tags = found(store, runs.start(store, "no repository")).data.tags
    assert "mlflow.source.git.commit" not in tags
    assert tags["mlflow.user"]
    assert tags["version.python"] == sys.version.split()[0]
    assert {"version.torch", "version.cv2", "version.mlflow"} <= set(tags)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert found(store, runs.start(store, "repository")).data.tags["mlflow.source.git.commit"] == head
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "mlflow.source.git.commit" not in found(store, runs.start(store, "no git")).data.tags


def test_an_experiment_made_by_another_process_meanwhile_is_used(
    store: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    first = runs.start(store, "first")
    look, blind = MlflowClient.get_experiment_by_name, iter([True])

    def late(self: MlflowClient, name: str) -> Any:
        return None if next(blind, False) else look(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    second = runs.start(store, "second")
    assert found(store, first).info.experiment_id == found(store, second).info.experiment_id


def test_deleted_things_are_reported_with_the_command_that_restores_them(store: TrackingConfig) -> None:
    config = TrackingConfig(uri=store.uri, experiment="gone")
    run = runs.start(config, "gone")
    run.finish()
    client = connect(store_uri(config))
    client.delete_run(run.run_id or "")
    with pytest.raises(TrackingError, match="mlflow runs restore"):
        runs.start(config, "gone", run_id=run.run_id)
    client.delete_experiment(client.get_run(run.run_id or "").info.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        runs.start(config, "again")


def test_what_the_store_refuses_is_one_line_and_holds_nothing_up(
    store: TrackingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.start(store, "refused")
    run.params({"bad?key": 1})
    run.metrics({"worse?key": 1.0}, step=0)
    run.metrics({"good": 1.0}, step=0)
    assert history(store, run, "good") == [(0, 1.0)]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "bad?key" in said[0] and "worse?key" in said[1]
    run.artifact(tmp_path / "missing.png")
    assert capsys.readouterr().err.endswith("missing.png: (No such file or directory)\n")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_end_of_a_run_is_recorded(store: TrackingConfig, status: Any) -> None:
    run = runs.start(store, "end")
    run.finish(status)
    assert connect(store_uri(store)).get_run(run.run_id or "").info.status == status


def test_without_tracking_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs.start(TrackingConfig(enabled=False), "off")
    run.params({"a": 1})
    run.tags({"a": 1})
    run.metrics({"a": 1.0}, step=0)
    run.text("x", "x.txt")
    run.artifact(tmp_path)
    run.finish("FAILED")
    assert run.run_id is None
    run.send()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_part_of_a_larger_run_is_shown_under_it(tmp_path: Path) -> None:
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    whole = runs.start(config, "whole")
    part = runs.start(config, "part", parent=whole.run_id)
    tags = connect(f"sqlite:///{tmp_path}/mlflow.db", create=False).get_run(part.run_id).data.tags
    assert tags["mlflow.parentRunId"] == whole.run_id


def test_short_epochs_share_a_request_and_nothing_is_lost(
    store: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    run, sent, log_batch = runs.start(store, "short"), [], MlflowClient.log_batch

    def counting(self: MlflowClient, run_id: str, **given: Any) -> None:
        sent.append(len(given.get("metrics", ())))
        log_batch(self, run_id, **given)

    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    for step in range(1, 60):
        run.metrics({"loss": 1 / step}, step)
        time.sleep(0.001)
    run.metrics({"loss": 9.0}, 5)  # known
    run.send()
    assert sum(sent) == 59 and len(sent) < 10
    assert history(store, run, "loss") == [(step, 1 / step) for step in range(1, 60)]


def test_the_end_of_a_run_is_recorded_even_if_its_metrics_are_refused(store: TrackingConfig) -> None:
    run = runs.start(store, "refused")
    run.metrics({"bad?key": 1.0}, step=0)
    run.finish()
    assert connect(store_uri(store)).get_run(run.run_id or "").info.status == "FINISHED"
