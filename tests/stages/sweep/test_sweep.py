"""Real sweeps over tiny trainings, in processes of their own; interrupted in every way."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import TrackingConfig, to_dict
from pipeline.config.sweep import SweepConfig
from pipeline.errors import ConfigError, UserError
from pipeline.model import checkpoint
from pipeline.stages.models import load_model
from pipeline.stages.run_folder import recorded
from pipeline.stages.sweep import run
from pipeline.stages.sweep.results import Swept, sweep_text
from pipeline.stages.sweep.run import sweep
from pipeline.tracking.store import connect

RATE = "training.learning_rate"


@dataclass(frozen=True)
class Done:
    config: SweepConfig
    folder: Path
    swept: Swept

    @property
    def uri(self) -> str:
        return str(self.config.base.tracking.uri)


@pytest.fixture(scope="module")
def grid(make_config: Any, example: Any) -> SweepConfig:
    """Two rates that learn, and one at which the loss is no number."""
    base = make_config(tracking=TrackingConfig(uri=example.uri, experiment="sweeps"))
    values = {RATE: {"values": [3e-3, 1e-4, 1e30]}}
    return SweepConfig(name="tiny-sweep", base=base, space=values, sampler="grid", seed=1, metric="val_loss")


@pytest.fixture(scope="module")
def done(grid: SweepConfig, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two trials at a time."""
    folder = tmp_path_factory.mktemp("sweeps") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return Done(grid, folder, sweep(replace(grid, parallel=2), folder, register_as="tiny", alias="champion"))


def test_the_best_trial_alone_is_tested(done: Done) -> None:
    swept = done.swept
    assert swept.trials == {"finished": 2, "pruned": 0, "failed": 1} and swept.folder == str(done.folder)
    values = {row.values[RATE]: row.value for row in swept.rows}
    assert swept.best["params"] == {RATE: 3e-3} and swept.best["value"] == values[3e-3] < values[1e-4]
    assert swept.best["test"]["n"] == 12 and swept.best["test"]["top1_low"] > 0
    for row in swept.rows:
        trial = done.folder / "trials" / f"{row.number:04d}"
        best = row.number == swept.best["trial"]
        assert (trial / "report/metrics.json").exists() == best
        if row.state == "finished":
            card = checkpoint.load(trial / "best")[1]
            assert card.metrics["val_loss"] == row.value and ("test" in card.metrics) == best
    (failed,) = [row for row in swept.rows if row.state == "failed"]
    assert failed.values == {RATE: 1e30} and "loss is not a number" in failed.reason


def test_the_folder_holds_table_pictures_and_the_best_checkpoint(done: Done) -> None:
    names = {path.name for path in done.folder.glob("[!.]*")}
    assert names == {"best", "trials", "study.db", "sweep.yaml", "trials.csv", "history.png", "result.json"}
    best = done.folder / "trials" / f"{done.swept.best['trial']:04d}" / "best"
    assert checkpoint.digest(done.folder / "best") == checkpoint.digest(best)
    assert load_model(done.folder, "cpu").classes == ["blue", "green", "red"]
    with (done.folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == [row.state for row in done.swept.rows]
    assert [float(row[RATE]) for row in rows] == [row.values[RATE] for row in done.swept.rows]
    result = json.loads((done.folder / "result.json").read_text())
    assert result["best"] == done.swept.best and result["trials"] == done.swept.trials
    assert yaml.safe_load((done.folder / "sweep.yaml").read_text())["space"] == done.config.space
    log = (done.folder / "trials" / "0000" / "log.txt").read_text()
    assert "epoch   1" in log
    assert "learning_rate" in sweep_text(done.swept) and "val_loss" in sweep_text(done.swept)


def test_the_trials_are_nested_runs(done: Done) -> None:
    client = connect(done.uri)
    experiment = [client.get_experiment_by_name("sweeps").experiment_id]
    (parent,) = client.search_runs(experiment, "tags.sweep = 'tiny-sweep'")
    assert parent.info.status == "FINISHED" and parent.data.tags["best.trial"] == str(done.swept.best["trial"])
    assert parent.data.params["sampler"] == "grid" and "0.003" in parent.data.params[f"space.{RATE}"]
    assert parent.data.metrics["best/val_loss"] == done.swept.best["value"]
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"trials.csv", "history.png", "sweep.yaml", "result.json"} <= names
    runs = client.search_runs(experiment, f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert sorted(r.info.run_name for r in runs) == [f"tiny-sweep-{number}" for number in range(3)]
    assert sorted(r.info.status for r in runs) == ["FAILED", "FINISHED", "FINISHED"]
    tested = [r.info.run_id for r in runs if "test/top1" in r.data.metrics]
    assert tested == [done.swept.best["run_id"]]


def test_the_best_checkpoint_is_in_the_registry(done: Done) -> None:
    assert done.swept.registered == "models:/tiny/1"
    found = load_model("models:/tiny@champion", "cpu", TrackingConfig(uri=done.uri))
    assert found.digest == checkpoint.digest(done.folder / "best")
    version = connect(done.uri).get_model_version("tiny", "1")
    assert version.run_id == done.swept.best["run_id"] and version.tags["metric"] == "val_loss"


KILLED = """
import os, signal, sys
from pipeline.cli import main
from pipeline.stages.sweep.study import Study

report = Study.report
def killed(self, number, epoch, value):
    prune = report(self, number, epoch, value)
    if (number, epoch) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return prune
Study.report = killed
main(["sweep", *sys.argv[1:]])
"""


def test_a_killed_sweep_goes_on_and_so_does_a_killed_trial(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL of the sweep in trial 1, then of the process of trial 1: the trials are those of a sweep that was not
    disturbed, and ran two at a time.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = replace(done.config, name="killed")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(to_dict(config) | {"base": recorded(config.base)}))
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "s.yaml"), "--out", str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL and not (out / "result.json").exists()

    hear = run._Sweep._hear
    victims = []

    def kill_once(self: Any, slot: int) -> None:
        if not victims:
            victims.append((self.at[slot].number, self.processes[slot].pid))
            os.kill(victims[0][1], signal.SIGKILL)
            os.waitid(os.P_PID, victims[0][1], os.WEXITED | os.WNOWAIT)
            self.processes[slot].receive()  # what it had said before
        hear(self, slot)

    with monkeypatch.context() as patch:
        patch.setattr(run._Sweep, "_hear", kill_once)
        swept = sweep(config, out)
    said = capsys.readouterr().err
    assert victims[0][0] == 1 and "its process ended by SIGKILL; it goes on in a new one" in said
    assert f"going on with the sweep in {out} after 1 trials" in said
    assert [(r.number, r.state, r.values, r.value, r.epochs) for r in swept.rows] == [
        (r.number, r.state, r.values, r.value, r.epochs) for r in done.swept.rows
    ]
    assert swept.best["test"] == done.swept.best["test"]
    runs = connect(done.uri).search_runs(
        [connect(done.uri).get_experiment_by_name("sweeps").experiment_id], "tags.mlflow.runName LIKE 'killed%'"
    )
    assert sorted(r.info.run_name for r in runs) == ["killed", "killed-0", "killed-1", "killed-2"]


def test_a_sweep_ends_when_the_first_trials_all_fail(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Combinations that do not fit cost no process; that each value fits to some other is checked before."""
    base = replace(done.config.base, tracking=TrackingConfig(enabled=False))
    space = {"recurrent.kind": {"values": ["gru", "rnn"]}, "recurrent.zoneout": {"values": [0.1, 0.2, 0.3]}}
    config = replace(done.config, base=base, space=space, name="bad")
    monkeypatch.setattr(run, "check_fit", lambda *_: None)
    monkeypatch.setattr(run._Sweep, "_ask", lambda *_: {})
    with pytest.raises(UserError, match=r"the first 3 trials failed, the last one: recurrent\.zoneout is.*log"):
        sweep(config, tmp_path / "bad")
    with pytest.raises(UserError, match="the first 4 trials failed"):  # the fourth is the first of this call
        sweep(config, tmp_path / "bad")


def test_folder_and_storage_are_of_one_sweep(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run._Sweep, "_ask", lambda *_: {})
    with pytest.raises(UserError, match=r"holds trials of another sweep.*--fresh"):
        sweep(replace(done.config, name="other"), done.folder)
    with pytest.raises(UserError, match=r"trials of a sweep 'tiny-sweep' that are not in .*--out"):
        sweep(replace(done.config, storage=f"sqlite:///{done.folder}/study.db"), tmp_path / "elsewhere")
    assert (done.folder / "best").exists()


def test_no_trial_begins_after_the_time_is_over(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run._Sweep, "_ask", lambda *_: {})
    base = replace(done.config.base, tracking=TrackingConfig(enabled=False))
    with pytest.raises(UserError, match=r"no trial .* finished; raise --trials or --timeout"):
        sweep(replace(done.config, base=base, timeout=1e-9), tmp_path / "late")
    assert not (tmp_path / "late/trials").exists()


def test_fresh_forgets_trials_and_results(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(done.folder, tmp_path / "run")
    (tmp_path / "run" / "my notes.txt").write_text("keep")
    base = replace(done.config.base, tracking=TrackingConfig(enabled=False))
    monkeypatch.setattr(run._Sweep, "_ask", lambda *_: {})
    with pytest.raises(UserError, match="no trial"):
        sweep(replace(done.config, base=base, timeout=1e-9), tmp_path / "run", fresh=True)
    assert {path.name for path in (tmp_path / "run").glob("[!.]*")} == {"study.db", "my notes.txt"}


def test_what_cannot_work_is_refused_before_anything_runs(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untracked = replace(done.config, base=replace(done.config.base, tracking=TrackingConfig(enabled=False)))
    with pytest.raises(ConfigError, match="--register needs an MLflow store"):
        sweep(untracked, tmp_path / "run", register_as="tiny")
    with pytest.raises(ConfigError, match="give --register NAME too"):
        sweep(done.config, tmp_path / "run", alias="champion")
    folds = replace(done.config.base, data=replace(done.config.base.data, folds=3))
    with pytest.raises(ConfigError, match="compares trials on one split"):
        sweep(replace(done.config, base=folds), tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        sweep(done.config, tmp_path / "file" / "run")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a sweep runs in one process"):
        sweep(done.config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
