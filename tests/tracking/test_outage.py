"""A server that is away, slow, full or confused: nothing is lost, nothing is there twice, and nobody waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.stages.sync import sync, sync_text
from pipeline.tracking import runs, sender
from pipeline.tracking.download import download
from pipeline.tracking.outbox import Outbox, found_in
from pipeline.tracking.store import connect
from tests.tracking.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
UNHURRIED = runs.PATIENCE


@pytest.fixture
def proxy(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Before the server; clients and runs are in a hurry."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    monkeypatch.setattr(runs, "PATIENCE", dict.fromkeys(runs.PATIENCE, (1.5, 0.3)))
    monkeypatch.setattr(sender, "RETRY_SECONDS", (0.05, 0.1))
    monkeypatch.setattr(sender, "SEND_SECONDS", 0.05)
    proxy = Proxy(server.address)
    yield proxy
    proxy.close()
    for run in list(runs._open.values()):  # what a test left to the end of the process
        run._sender.end()
        run._outbox.release()
    runs._open.clear()


def begin(proxy: Proxy, folder: Path, **given: Any) -> runs.Run:
    config = TrackingConfig(uri=proxy.address, experiment="outage", offline=given.pop("offline", False))
    return runs.start(config, "run", folder=folder, **given)


def first(run: runs.Run) -> None:
    """What an undisturbed run records before the trouble begins."""
    run.params({"seed": 1, "changes": "a"})
    for epoch in (1, 2):
        run.metrics({"loss": 1 / epoch, "top1": epoch / 4}, epoch)


def second(run: runs.Run, tmp_path: Path) -> None:
    """And after that."""
    (tmp_path / "figures" / "deep").mkdir(parents=True, exist_ok=True)
    (tmp_path / "figures" / "a.txt").write_text("a")
    (tmp_path / "figures" / "deep" / "b.txt").write_text("b")
    run.params({"late": 2, "changes": "b"})
    for epoch in (3, 4, 5):
        run.metrics({"loss": 1 / epoch, "top1": epoch / 4}, epoch)
        run.tags({"epoch": epoch})
    run.text("note", "notes/note.txt")
    run.artifact(tmp_path / "figures", "figures")
    run.dataset("clips", "0123", "/clips", "training")


def contents(server: Any, run_id: str, copy: Path) -> dict[str, Any]:
    """All that the store has of a run, in an order of its own."""
    client = connect(server.address)
    run = client.get_run(run_id)
    root = Path(client.download_artifacts(run_id, "", str(copy)))
    return {
        "metrics": {
            name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))
            for name in run.data.metrics
        },
        "params": run.data.params,
        "tags": {key: value for key, value in run.data.tags.items() if key != runs.KEY and ".source." not in key},
        "artifacts": {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.txt")},
        "datasets": [(given.dataset.name, given.dataset.digest) for given in run.inputs.dataset_inputs],
        "status": run.info.status,
    }


@pytest.fixture(scope="module")
def undisturbed(server: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = runs.start(TrackingConfig(uri=server.address, experiment="outage"), "run", folder=folder)
    first(run)
    second(run, folder)
    run.finish()
    (folder / "copy").mkdir()
    found = contents(server, str(run.run_id), folder / "copy")
    assert found["metrics"]["loss"] == [(epoch, 1 / epoch) for epoch in range(1, 6)]
    assert found["tags"]["drift.changes"] == "b" and found["datasets"] == [("clips", "0123")]
    assert sorted(found["artifacts"]) == ["figures/a.txt", "figures/deep/b.txt", "notes/note.txt"]
    return found


@pytest.mark.parametrize("mode", ["500", "full", "busy", "cut", "lost", "hang"])
def test_what_a_failing_server_did_not_take_is_sent_by_sync_once(
    server: Any,
    proxy: Proxy,
    undisturbed: dict[str, Any],
    mode: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = begin(proxy, tmp_path / "run")
    first(run)
    run.send()
    proxy.mode = mode
    began = time.monotonic()
    second(run, tmp_path)
    assert time.monotonic() - began < 0.5  # the training does not wait
    run.finish()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "MLflow takes nothing now" in said[0], said
    assert f"wait in {tmp_path}/run/outbox/" in said[1] and f"video-lstm sync {tmp_path}/run sends them" in said[1]
    abandon(run)
    failed = sync(tmp_path)
    assert failed.left and "wait:" in sync_text(failed)
    proxy.mode = "ok"
    done = sync(tmp_path)
    assert (done.left, done.runs[0].run_id) == (0, run.run_id) and done.runs[0].sent == failed.left
    assert not (tmp_path / "run" / "outbox").exists()
    before = len(proxy.requests)
    assert sync(tmp_path).runs == [] and sync_text(sync(tmp_path)) == f"nothing waits in {tmp_path}"
    assert len(proxy.requests) == before
    assert contents(server, str(run.run_id), tmp_path) == undisturbed


def abandon(run: Any) -> None:
    """As the end of its process does."""
    run._sender.end()
    runs._open.pop(run._outbox.folder)
    run._outbox.release()


def test_a_server_that_comes_back_gets_all_from_the_training_itself(
    server: Any,
    proxy: Proxy,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runs, "PATIENCE", UNHURRIED)  # it does come back, and its first answer may be a slow one
    run = begin(proxy, tmp_path / "run")
    proxy.mode = "500"
    first(run)
    while "takes nothing now" not in capsys.readouterr().err:
        time.sleep(0.02)
    second(run, tmp_path)
    proxy.mode = "ok"
    run.finish()
    assert "takes entries again" in capsys.readouterr().err and not (tmp_path / "run" / "outbox").exists()
    assert contents(server, str(run.run_id), tmp_path) == undisturbed


def test_a_run_that_was_closed_in_an_outage_is_sent_by_a_process_that_goes_on(proxy: Proxy, tmp_path: Path) -> None:
    run = begin(proxy, tmp_path / "run")
    proxy.mode = "cut"
    run.metrics({"loss": 1.0}, 1)
    run.finish()
    assert "another process is sending" in sync(tmp_path).runs[0].error
    proxy.mode = "ok"
    deadline = time.monotonic() + 20
    while (tmp_path / "run" / "outbox").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert connect(proxy.address).get_run(str(run.run_id)).info.status == "FINISHED"
    assert runs._open == {}


def test_a_real_server_that_is_killed(
    server: Any,
    proxy: Proxy,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = TrackingConfig(uri=server.address, experiment="outage")
    run = runs.start(config, "run", folder=tmp_path / "run")
    first(run)
    server.kill()
    second(run, tmp_path)
    run.finish()
    assert f"no MLflow server answers at {server.address}" in capsys.readouterr().err
    with pytest.raises(TrackingError, match=r"no MLflow server answers.*--tracking\.offline true"):
        runs.start(config, "other", folder=tmp_path / "other")  # one that cannot be made is said at once
    assert not (tmp_path / "other" / "outbox").exists()
    resumed = runs.start(config, "run", run.run_id, folder=tmp_path / "run")  # but one that is there goes on
    resumed.metrics({"loss": 9.0}, 5)
    resumed.finish()
    abandon(resumed)
    server.start()
    assert sync(tmp_path).left == 0
    assert contents(server, str(run.run_id), tmp_path) == undisturbed


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.tracking.test_outage import first, second
from pipeline.config import TrackingConfig
from pipeline.tracking import runs
from pipeline.tracking.outbox import Outbox
config = TrackingConfig(uri=sys.argv[1], experiment="outage")
run = runs.start(config, "run", key=sys.argv[4], folder=Path(sys.argv[2]) / "run")
mark = Outbox.mark
def killed(self, number):
    if number >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)  # the store has it, and nobody knows
    mark(self, number)
Outbox.mark = killed
first(run)
second(run, Path(sys.argv[2]))
run.send()
"""


def test_a_training_that_is_killed_between_sending_and_knowing_it(
    server: Any, proxy: Proxy, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    number = 5  # entries; of which some are metrics
    key = f"killed-{number}"
    arguments = [server.address, str(tmp_path), str(number), key]
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = begin(proxy, tmp_path / "run", key=key)
    first(run)  # a training records again what its state has
    second(run, tmp_path)
    run.finish()
    client = connect(server.address)
    experiment = client.get_experiment_by_name("outage").experiment_id
    assert len(client.search_runs([experiment], f"tags.`{runs.KEY}` = '{key}'")) == 1
    assert contents(server, str(run.run_id), tmp_path) == undisturbed


def test_offline_runs_are_made_by_sync_the_parent_first(
    server: Any, proxy: Proxy, undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.mode = "cut"
    parent = begin(proxy, tmp_path / "z", offline=True)
    run = begin(proxy, tmp_path / "a", offline=True, parent=parent.run_id, key="mine")
    assert run.run_id == "offline-mine"
    first(run)
    run.finish("KILLED")
    again = begin(proxy, tmp_path / "a", offline=True, run_id=run.run_id)
    second(again, tmp_path)
    again.finish()
    assert "video-lstm sync" in capsys.readouterr().err
    with pytest.raises(TrackingError, match="wait in"):
        parent.send()
    parent.finish()
    assert proxy.requests == []
    proxy.mode = "ok"
    assert "its parent run is not there yet" in sync(tmp_path / "a").runs[0].error
    done = sync(tmp_path)
    assert done.left == 0 and [Path(one.folder).parent.parent.name for one in done.runs] == ["z", "a"]
    found = contents(server, str(done.runs[1].run_id), tmp_path)
    assert found["tags"].pop("mlflow.parentRunId") == done.runs[0].run_id
    assert found == undisturbed
    online = begin(proxy, tmp_path / "a", run_id=run.run_id)  # tested later, as a sweep does with its best trial
    assert online.run_id == done.runs[1].run_id
    online.finish()


def test_a_password_goes_to_the_server_and_nowhere_else(
    server: Any,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = "c0rrect-h0rse"
    proxy.login = ("me", secret)
    with pytest.raises(TrackingError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as refused:
        begin(proxy, tmp_path / "run")
    store = TrackingConfig(uri=proxy.address)
    for model in ("models:/gestures@champion", "runs:/0123"):
        with pytest.raises(TrackingError, match=r"^http://127\.0\.0\.1:\d+: the server asks for a user and a password"):
            download(model, tmp_path / "model", store)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    monkeypatch.setattr(sys, "argv", ["video-lstm", "train", "--note", secret])
    address = proxy.address.replace("://", f"://me:{secret}@")
    run = runs.start(TrackingConfig(uri=address, experiment="outage"), "run", folder=tmp_path / "run")
    run.params({"tracking.uri": address, "note": f"it is {secret}"})
    run.text(f"uri: {address}", "config.txt")
    run.send()
    proxy.mode = "500"
    run.tags({"failure": f"cannot reach {address}"})
    run.finish("FAILED")
    abandon(run)
    waiting = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(waiting) >= 2
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    proxy.mode = "ok"
    without = sync_text(sync(tmp_path))
    assert "is kept nowhere; give the address in MLFLOW_TRACKING_URI" in without
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    done = sync(tmp_path)
    assert done.left == 0, sync_text(done)
    found = contents(server, str(run.run_id), tmp_path)
    assert found["params"]["note"] == "it is ***" and found["artifacts"]["config.txt"].endswith("@" + address[-15:])
    out, err = capfd.readouterr()
    for text in (str(refused.value), json.dumps(found), without, sync_text(done), out, err, *map(str, waiting)):
        assert secret not in text


def test_sync_says_what_is_wrong(proxy: Proxy, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nowhere: no such folder; name a run's folder"):
        sync(tmp_path / "nowhere")
    box = Outbox(tmp_path / "run" / "outbox" / "key")
    box.note(uri=proxy.address, key="key", run_id="0" * 32)
    box.append("tags", values={"a": "1"})
    box.release()
    assert found_in(tmp_path) == [box.folder]
    assert f"Run with id={'0' * 32} not found" in sync(tmp_path).runs[0].error
    elsewhere = sync(tmp_path, f"sqlite:///{tmp_path}/none.db")
    assert "no MLflow store at" in elsewhere.runs[0].error and elsewhere.left == 1
