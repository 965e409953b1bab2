from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.cli import main
from pipeline.config import TrackingConfig
from pipeline.tracking import runs
from pipeline.tracking.store import connect, store_uri
from pipeline.tracking.ui import free_port, ui_command


def fetch(address: str, body: dict[str, Any] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        content: bytes = answer.read()
    return content


@contextmanager
def served(command: list[str], environment: dict[str, str], folder: Path, address: str) -> Iterator[None]:
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        family: list[psutil.Process] = []
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    fetch(f"{address}/health")
                    break
                except (urllib.error.URLError, OSError):
                    assert server.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.2)
            family = psutil.Process(server.pid).children(recursive=True)
            yield
        finally:
            os.killpg(server.pid, signal.SIGINT)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in alive:
                process.kill()
            assert not alive, "the server left processes behind"


@pytest.mark.skipif(os.name == "nt", reason="process groups of POSIX")
def test_the_page_shows_runs_and_artifacts_of_the_store(store: TrackingConfig, tmp_path: Path) -> None:
    run = runs.start(store, "shown")
    run.metrics({"val.top1": 0.875}, step=3)
    run.text("seen", "notes/note.txt")
    run.finish()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command, environment = ui_command(store_uri(store), port=port)
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    with served(command, environment, tmp_path, address):
        page = json.loads(fetch(f"{address}/api/2.0/mlflow/runs/get?run_id={run.run_id}"))
        assert page["run"]["info"]["run_name"] == "shown"
        experiment = page["run"]["info"]["experiment_id"]
        body = {"experiment_ids": [experiment], "filter": "attributes.run_name = 'shown'"}
        listed = json.loads(fetch(f"{address}/api/2.0/mlflow/runs/search", body))
        assert [entry["info"]["run_id"] for entry in listed["runs"]] == [run.run_id]
        assert listed["runs"][0]["data"]["metrics"][0]["value"] == 0.875
        note = f"{address}/get-artifact?run_uuid={run.run_id}&path=notes/note.txt"
        assert fetch(note) == b"seen"
        assert b"<html" in fetch(address).lower()
        # The same class records through the server, without knowing where its store is.
        remote = TrackingConfig(uri=address, experiment=store.experiment)
        again = runs.start(remote, "unused", run_id=run.run_id)
        again.metrics({"val.top1": 0.5}, step=3)
        again.metrics({"val.top1": 0.75}, step=4)
        again.text("far", "notes/far.txt")
        again.finish()
    history = connect(store_uri(store)).get_metric_history(run.run_id or "", "val.top1")
    assert [(entry.step, entry.value) for entry in history] == [(3, 0.875), (4, 0.75)]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["here", "log"]


def test_the_command_listens_on_this_machine_alone_and_hides_the_store() -> None:
    command, environment = ui_command("postgresql://me:s3cret@host/db", port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--workers") + 1] == "1"
    assert "--default-artifact-root" not in command
    assert "s3cret" not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:s3cret@host/db"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    with pytest.raises(ValueError, match="is a server"):
        ui_command("https://host")


def test_a_taken_port_is_not_chosen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = free_port(port)
        assert other != port
    assert free_port(other) == other


def test_the_page_of_a_server_is_named_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    main(["ui", "--uri", "https://me:s3cret@host:5000"])
    assert capsys.readouterr().err.strip() == "the store is a server; its page is at https://me:***@host:5000"


def test_a_store_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ui", "--uri", f"sqlite:///{tmp_path}/none.db"])
    assert ended.value.code == 2 and "run video-lstm train first, or set --uri" in capsys.readouterr().err


def test_what_is_said_of_a_database_hides_its_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr("pipeline.stages.ui.ui_command", lambda *_: (command, dict(os.environ)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            main(["ui", "--uri", "postgresql://me:s3cret@host/db", "--port", str(port)])
    said = capsys.readouterr().err
    assert "MLflow UI on postgresql://me:***@host/db: http://127.0.0.1:" in said and f":{port} " not in said
    assert "the MLflow server ended with code 3" in said
