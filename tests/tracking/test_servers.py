"""Real servers, from a training to a label: PostgreSQL, proxied artifacts, passwords."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config import Config, TrackingConfig
from pipeline.stages.train import train
from pipeline.tracking.registry import register
from pipeline.tracking.store import connect
from tests.tracking.conftest import DATABASE_PASSWORD
from tests.tracking.proxy import Proxy

PASSWORD = "c0rrect-h0rse"


def from_training_to_label(config: Config, folder: Path, clip: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """All that was printed or kept anywhere on the way, for a search."""
    trained = train(config, folder / "run")
    assert config.tracking.uri is not None and trained.run_id is not None
    assert not (folder / "run" / "outbox").exists()
    client = connect(config.tracking.uri)
    run = client.get_run(trained.run_id)
    assert run.info.status == "FINISHED" and run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert register(config.tracking, "gestures", trained.run_id, "champion") == "models:/gestures/1"
    answers = []
    for model in (str(folder / "run"), f"runs:/{trained.run_id}", "models:/gestures@champion"):
        main(["classify", model, str(clip), "--workers", "0", "--uri", config.tracking.uri, "--json",
              "--out", str(folder / "labels.csv")])  # fmt: skip
        answers.append((folder / "labels.csv").read_text().splitlines()[1].split(",")[:4])
    assert answers[0] == answers[1] == answers[2]
    history = {name: client.get_metric_history(trained.run_id, name) for name in run.data.metrics}
    assert sorted(point.step for point in history["val/loss"]) == [1, 2]
    kept = Path(client.download_artifacts(trained.run_id, "", str(folder)))
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "catalog.parquet", "config.yaml", "confusion.png"}
    text = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode("latin1")
    return text + json.dumps([run.data.params, run.data.tags]) + "".join(capfd.readouterr())


def test_a_server_with_postgresql_serves_train_register_and_classify_and_no_password_gets_out(
    server: Any,
    postgres: str | None,
    make_config: Any,
    tiny_clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if postgres is None:
        pytest.skip("PostgreSQL 15 of Debian is not installed")
    proxy = Proxy(server.address)
    proxy.login = ("me", PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    config = make_config(tracking=TrackingConfig(uri=proxy.address, experiment="servers"))
    try:
        found = from_training_to_label(config, tmp_path, sorted(tiny_clips.glob("red/*"))[0], capfd)
    finally:
        proxy.close()
    for secret in (PASSWORD, DATABASE_PASSWORD):
        assert secret not in found
        assert secret not in (Path(server._log)).read_text()


def test_mlflows_own_basic_auth(
    kills: Any,
    make_config: Any,
    tiny_clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\nauth_cache_ttl_seconds = 60\n"
        f"database_uri = sqlite:///{tmp_path}/server/auth.db\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "server" / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key",
    }  # fmt: skip
    store, arguments = f"sqlite:///{tmp_path}/server/mlflow.db", ["--app-name", "basic-auth"]
    server = kills.Server(tmp_path / "server", store, environment, arguments)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    config = make_config(tracking=TrackingConfig(uri=server.address, experiment="servers"))
    (tmp_path / "out").mkdir()
    try:
        server.start()
        found = from_training_to_label(config, tmp_path / "out", sorted(tiny_clips.glob("red/*"))[0], capfd)
    finally:
        server.kill()
    assert PASSWORD not in found
