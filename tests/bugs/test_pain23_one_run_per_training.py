"""Pain 23: each process of a distributed training makes an MLflow run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline.config import TrackingConfig
from pipeline.tracking.store import connect, store_uri

ROOT = Path(__file__).resolve().parents[2]

PROCESS = """
import sys
from pipeline.config import TrackingConfig
from pipeline.tracking import runs
run = runs.start(TrackingConfig(uri=sys.argv[1], experiment="together"), sys.argv[2])
run.metrics({"loss": 1.0}, 0)
run.finish()
"""


def test_trainings_that_start_at_once_make_one_run_each(tmp_path: Path) -> None:
    # Two trainings in the same moment, on a store that does not exist yet; one of them has two processes.
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="together")
    started = []
    for name, rank in (("one", "0"), ("one", "1"), ("two", None)):
        environment = {key: value for key, value in os.environ.items() if key != "RANK"} | {"PYTHONPATH": str(ROOT)}
        environment |= {} if rank is None else {"RANK": rank}
        command = [sys.executable, "-c", PROCESS, str(config.uri), name]
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    client = connect(store_uri(config))
    experiments = [entry for entry in client.search_experiments() if entry.name == "together"]
    assert len(experiments) == 1
    found = client.search_runs([experiments[0].experiment_id])
    assert sorted(run.info.run_name for run in found) == ["one", "two"]
    assert all(run.info.status == "FINISHED" and run.data.metrics == {"loss": 1.0} for run in found)
