from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, TrackingConfig, flatten, to_dict
from pipeline.errors import TrackingError
from pipeline.tracking import runs
from pipeline.tracking.store import connect, store_uri


def found(config: TrackingConfig, run: runs.Run) -> Any:
    assert run.run_id is not None
    return connect(store_uri(config)).get_run(run.run_id)


def history(config: TrackingConfig, run: runs.Run, metric: str) -> list[tuple[int, float]]:
    assert run.run_id is not None
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
    run.finish()
    kept = found(store, run)
    assert kept.info.status == "FINISHED"
    assert kept.info.run_name == "first"
    assert kept.data.params == {key: str(value) for key, value in flat.items()}
    assert kept.data.tags["split"] == "abc"
    assert kept.data.tags["skipped"] == "2"
    assert history(store, run, "val.loss") == [(1, 0.5), (2, 0.25)]
    assert run.logged_steps("val.loss") == {1, 2}
    assert run.logged_steps("other") == set()
    root = connect(store_uri(store)).download_artifacts(run.run_id or "", "", str(tmp_path))
    assert (Path(root) / "config.yaml").read_text() == "a: 1\n"
    assert (Path(root) / "figures" / "figure.png").read_bytes() == b"png"


def test_artifacts_lie_beside_the_database_wherever_the_command_ran(
    store: TrackingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs.start(store, "elsewhere")
    run.text("hello", "note.txt")
    database = Path((store.uri or "").removeprefix("sqlite:///"))
    assert len(list((database.parent / "mlruns").glob(f"*/{run.run_id}/artifacts/note.txt"))) == 1
    assert list(tmp_path.iterdir()) == []


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
    client = connect(store_uri(config))
    client.delete_run(run.run_id or "")
    with pytest.raises(TrackingError, match="mlflow runs restore"):
        runs.start(config, "gone", run_id=run.run_id)
    client.delete_experiment(found(config, run).info.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        runs.start(config, "again")


def test_what_the_store_refuses_is_one_line(store: TrackingConfig, tmp_path: Path) -> None:
    run = runs.start(store, "refused")
    for call in (
        lambda: run.params({"bad?key": 1}),
        lambda: run.metrics({"bad?key": 1.0}, step=0),
        lambda: run.artifact(tmp_path / "missing.png"),
    ):
        with pytest.raises(TrackingError) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_end_of_a_run_is_recorded(store: TrackingConfig, status: Any) -> None:
    run = runs.start(store, "end")
    run.finish(status)
    assert found(store, run).info.status == status


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
    assert run.logged_steps("a") == set()
    assert list(tmp_path.iterdir()) == []


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
    for step in range(1, 6):
        run.metrics({"loss": 1 / step}, step)
    assert sent == [1] and run.logged_steps("loss") == {1, 2, 3, 4, 5}
    run.metrics({"loss": 9.0}, 5)  # known, though not sent yet
    run.finish()
    assert sent == [1, 4] and history(store, run, "loss") == [(step, 1 / step) for step in range(1, 6)]


def test_after_a_second_and_on_demand_metrics_go_out(store: TrackingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run, now = runs.start(store, "later"), [100.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    for now[0], expected in ((100.0, 1), (100.5, 1), (101.5, 3), (101.6, 3)):
        run.metrics({"loss": 0.5}, int(now[0] * 10))
        assert len(history(store, run, "loss")) == expected
    run.send()
    assert len(history(store, run, "loss")) == 4


def test_a_store_that_comes_back_gets_what_it_missed(store: TrackingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    run = runs.start(store, "outage")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", lambda *_, **__: (_ for _ in ()).throw(MlflowException("away")))
        with pytest.raises(TrackingError, match="away"):
            run.metrics({"loss": 0.5}, 1)
    run.finish()
    assert history(store, run, "loss") == [(1, 0.5)] and found(store, run).info.status == "FINISHED"


def test_the_end_of_a_run_is_recorded_even_if_its_metrics_are_refused(store: TrackingConfig) -> None:
    run = runs.start(store, "refused")
    with pytest.raises(TrackingError):
        run.metrics({"bad?key": 1.0}, step=0)
    with pytest.raises(TrackingError):
        run.finish()
    assert found(store, run).info.status == "FINISHED"
