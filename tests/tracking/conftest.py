from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrackingConfig
from pipeline.tracking.store import connect, store_uri

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "server_kills.py"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a store lies below the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    """One SQLite store for all tests (making its tables takes a second), in a folder with an awkward name."""
    folder = tmp_path_factory.mktemp("störe 100% full")
    config = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="tests")
    connect(store_uri(config))
    return config


POSTGRES = Path("/usr/lib/postgresql/15/bin")
DATABASE_PASSWORD = "b4ttery-staple"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str | None]:
    """Address of a PostgreSQL of our own, on a socket; None where Debian's packages are not installed."""
    if not (POSTGRES / "initdb").exists():
        yield None
        return
    # not below pytest's folders, which are closed to the user that PostgreSQL wants instead of root
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    (folder / "password").write_text(DATABASE_PASSWORD)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    server = None
    try:
        made = [POSTGRES / "initdb", "-D", folder / "data", "-U", "me", "--auth=scram-sha-256", "--no-sync"]
        subprocess.run([*made, f"--pwfile={folder}/password"], check=True, capture_output=True, **user)
        quick = [argument for name in ("fsync", "full_page_writes") for argument in ("-c", f"{name}=off")]
        command = [POSTGRES / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", *quick]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, **user)
        yield f"postgresql+psycopg2://me:{DATABASE_PASSWORD}@/postgres?host={folder}"
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server(
    kills: Any, store: TrackingConfig, postgres: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A real `mlflow server` with PostgreSQL, else SQLite, and proxied artifacts."""
    if os.name == "nt":
        pytest.skip("process groups of POSIX")
    server = kills.Server(tmp_path_factory.mktemp("server"), postgres or store.uri)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def kills() -> Iterator[Any]:
    """scripts/server_kills.py."""
    spec = importlib.util.spec_from_file_location("server_kills", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["server_kills"] = module
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("server_kills")
