from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import TrackingConfig
from pipeline.tracking.store import connect, store_uri


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
