"""Pain 22: a resumed training starts a new MLflow run, and its curves fall into two halves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking import runs
from pipeline.tracking.store import connect, store_uri

ROOT = Path(__file__).resolve().parents[2]

TRAINING = """
import sys, time
from pipeline.config import TrackingConfig
from pipeline.tracking import runs
run = runs.start(TrackingConfig(uri=sys.argv[1], experiment="resume"), "training")
run.params({"epochs": 4, "workers": 2})
for epoch in (1, 2):
    run.metrics({"val.loss": 1 / epoch}, epoch)
run.send()  # epochs that follow each other at once share a request
print(run.run_id, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    folder = tmp_path_factory.mktemp("resume")
    return TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="resume")


@pytest.fixture(scope="module")
def killed(config: TrackingConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run id of a training that was killed after two epochs."""
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(config.uri)],
        cwd=tmp_path_factory.mktemp("training"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert training.stdout is not None
    run_id = training.stdout.readline().strip()
    training.kill()
    training.communicate()
    assert run_id
    return run_id


def kept(config: TrackingConfig, run_id: str) -> Any:
    return connect(store_uri(config)).get_run(run_id)


def test_a_killed_training_goes_on_in_its_run(config: TrackingConfig, killed: str) -> None:
    assert kept(config, killed).info.status == "RUNNING"
    run = runs.start(config, "another name", run_id=killed)
    assert run.run_id == killed
    # The last checkpoint was of epoch 1: epoch 2 is trained again, and must not be there twice.
    for epoch in (2, 3, 4):
        run.metrics({"val.loss": 1 / epoch}, epoch)
    run.finish()
    client = connect(store_uri(config))
    history = client.get_metric_history(killed, "val.loss")
    assert sorted((entry.step, entry.value) for entry in history) == [
        (1, 1),
        (2, 1 / 2),
        (3, 1 / 3),
        (4, 1 / 4),
    ]
    assert kept(config, killed).info.status == "FINISHED"
    assert kept(config, killed).info.run_name == "training"


def test_two_starts_with_one_id_make_no_second_run(config: TrackingConfig, killed: str) -> None:
    client = connect(store_uri(config))
    experiment = kept(config, killed).info.experiment_id
    before = len(client.search_runs([experiment]))
    first, second = (runs.start(config, "again", run_id=killed) for _ in range(2))
    assert first.run_id == second.run_id == killed
    assert len(client.search_runs([experiment])) == before
    first.send()
    assert kept(config, killed).info.status == "RUNNING"


def test_options_that_changed_are_told_apart(config: TrackingConfig, killed: str) -> None:
    run = runs.start(config, "again", run_id=killed)
    run.params({"epochs": 6, "workers": 2, "patience": 3})
    run.send()
    data = kept(config, killed).data
    assert data.params == {"epochs": "4", "workers": "2", "patience": "3"}
    assert data.tags["drift.epochs"] == "6"
    assert "drift.workers" not in data.tags


def test_a_run_of_another_store_is_not_replaced_by_a_new_one(config: TrackingConfig, killed: str) -> None:
    client = connect(store_uri(config))
    experiment = kept(config, killed).info.experiment_id
    before = len(client.search_runs([experiment]))
    with pytest.raises(TrackingError, match=r"0123 cannot be resumed.*tracking\.uri"):
        runs.start(config, "x", run_id="0123")
    assert len(client.search_runs([experiment])) == before
