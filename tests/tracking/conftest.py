from __future__ import annotations

import importlib.util
import sys
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
