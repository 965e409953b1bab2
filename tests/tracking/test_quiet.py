"""What MLflow does beside its work: nothing on the network, nothing on the terminal, no import when off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

OFF = """
import sys
from pipeline.config import TrackingConfig
from pipeline.tracking import runs, store, ui
run = runs.start(TrackingConfig(enabled=False), "off")
run.metrics({"a": 1.0}, 0)
run.finish()
heavy = {"mlflow", "torch", "pandas", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
"""

RECORD = """
import socket, sys, threading
asked = []
def refuse(*arguments, **options):
    asked.append(str(arguments))
    raise OSError("no network here")
socket.getaddrinfo = refuse
socket.socket.connect = refuse
from pipeline.config import TrackingConfig
from pipeline.tracking import runs
run = runs.start(TrackingConfig(uri="sqlite:///" + sys.argv[1]), "quiet")
run.params({"a": 1})
run.metrics({"a": 1.0}, 0)
run.text("x", "x.txt")
run.finish()
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(5)
        asked.append(thread.name)
with open(sys.argv[2], "w") as file:
    file.write("\\n".join(asked))
"""


def python(code: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    # MLflow switches its telemetry off by itself where these name a test or a build machine.
    hidden = (
        "PYTEST_CURRENT_TEST",
        "CI",
        "MLFLOW_",
        "DO_NOT_TRACK",
        "GITHUB_",
        "GITLAB_",
        "JENKINS_",
        "RANK",
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**environment, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_tracking_that_is_off_imports_no_mlflow() -> None:
    done = python(OFF)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("telemetry", [False, True], ids=["ours", "switched on by the user"])
def test_nothing_is_sent_to_the_makers_of_mlflow(tmp_path: Path, telemetry: bool) -> None:
    settings = {"MLFLOW_DISABLE_TELEMETRY": "false", "DO_NOT_TRACK": "false"} if telemetry else {}
    done = python(RECORD, str(tmp_path / "mlflow.db"), str(tmp_path / "asked"), **settings)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text()
    # The second case shows that the first one would notice.
    assert ("telemetry" in asked) == telemetry
    if not telemetry:
        assert asked == ""
        assert done.stdout == ""
        assert done.stderr == ""
