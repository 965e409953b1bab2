from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.config import TrackingConfig
from pipeline.tracking import environment, runs, system
from pipeline.tracking.datasets import DataInput, record_inputs
from pipeline.tracking.delivery import NOTE, OURS
from pipeline.tracking.store import connect, store_uri


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With one commit of one file, in a folder below which the test runs."""
    root = tmp_path / "code"
    (root / "inside").mkdir(parents=True)
    (root / "model.py").write_text("hidden = 64\nname = 'a'\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    monkeypatch.chdir(root / "inside")
    return root


def test_what_is_not_committed_comes_along_as_a_patch_that_applies(repository: Path, tmp_path: Path) -> None:
    tags, patch = environment.repository()
    assert (tags["git.dirty"], tags["mlflow.source.git.branch"], patch) == ("false", "main", "")
    git(repository, "remote", "add", "origin", "https://me:s3cret@host/code.git")
    (repository / "model.py").write_text("hidden = 128\nname = 'ä'\n")
    (repository / "staged.py").write_text("x = 1\n")
    git(repository, "add", "staged.py")
    (repository / "new ä.txt").write_text("not kept")
    tags, patch = environment.repository()
    assert tags["git.dirty"] == "true" and tags["mlflow.source.git.repoURL"] == "https://me:***@host/code.git"
    assert "#   new ä.txt\n" in patch and "not kept" not in patch
    git(tmp_path, "clone", "-q", str(repository), "copy")
    (tmp_path / "changes.patch").write_text(patch)
    git(tmp_path / "copy", "apply", str(tmp_path / "changes.patch"))
    for name in ("model.py", "staged.py"):
        assert (tmp_path / "copy" / name).read_text() == (repository / name).read_text()


def test_a_patch_that_is_too_long_says_so_and_passwords_stay_out(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "model.py").write_text("store = 'postgresql://me:s3cret@host/db'\n" + "x = 1\n" * 500)
    assert "postgresql://me:***@host/db" in environment.repository()[1]
    monkeypatch.setattr(environment, "PATCH_BYTES", 300)
    patch = environment.repository()[1]
    assert re.match(r"# cut: the whole patch has \d+ characters", patch) and len(patch) < 500


def test_without_a_repository_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert environment.repository() == ({}, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.repository() == ({}, "")


def test_packages_and_machine_are_named() -> None:
    lines = environment.packages().splitlines()
    assert all(re.fullmatch(r"[^=\s]+==\S+", line) for line in lines) and len(lines) > 30
    assert any(line.startswith("mlflow==") for line in lines)
    tags = environment.hardware()
    assert int(tags["hardware.cores"]) <= (os.cpu_count() or 0) and float(tags["hardware.memory_gb"]) > 0.5
    assert tags["hardware.cpu"]


def test_a_run_keeps_both_surroundings_when_it_goes_on(store: TrackingConfig, repository: Path) -> None:
    (repository / "model.py").write_text("hidden = 1\n")
    run = runs.start(store, "environment")
    environment.record_environment(run, "train")
    environment.record_environment(run, "train", epoch=3)
    run.send()
    client = connect(store_uri(store))
    found = {item.path for item in client.list_artifacts(run.run_id or "", "environment")}
    assert found == {f"environment/{name}" for name in ("packages.txt", "changes.patch", "after_epoch_3")}
    tags = client.get_run(run.run_id or "").data.tags
    assert tags["stage"] == "train" and tags["git.dirty"] == "true" and "hardware.cpu" in tags
    environment.record_environment(runs.NoRun(), "train")  # asks git for nothing


def test_data_sets_are_inputs_and_count_once(store: TrackingConfig) -> None:
    run = runs.start(store, "inputs")
    parts = [
        DataInput("clips", f"{i}" * 64, name, "/data/clips", {"clips": i}) for i, name in enumerate(("train", "val"))
    ]
    record_inputs(run, parts)
    record_inputs(run, parts)  # a resumed training says it again
    run.send()
    client = connect(store_uri(store))
    kept = client.get_run(run.run_id or "").inputs.dataset_inputs
    assert sorted((one.tags[0].value, one.dataset.name, one.dataset.digest) for one in kept) == [
        ("train", "clips", "0" * 16),
        ("val", "clips", "1" * 16),
    ]
    experiment = client.get_run(run.run_id or "").info.experiment_id
    assert client.search_runs([experiment], f"dataset.digest = '{'1' * 16}'")[0].info.run_id == run.run_id


def test_a_description_stays_as_a_person_left_it(store: TrackingConfig) -> None:
    client, run = connect(store_uri(store)), runs.start(store, "note")

    def note() -> Any:
        run.send()
        return client.get_run(run.run_id or "").data.tags[NOTE]

    run.note("first")
    run.note("second")
    assert note() == OURS + "second"
    client.set_tag(run.run_id or "", NOTE, "a person's words")
    run.note("third")
    assert note() == "a person's words"


def test_a_crash_keeps_its_traceback_and_a_users_mistake_does_not(store: TrackingConfig, tmp_path: Path) -> None:
    from pipeline.errors import DataError

    client = connect(store_uri(store))
    for error, kept in ((ZeroDivisionError("at sqlite://me:s3cret@x"), True), (DataError("no clips"), False)):
        run = runs.start(store, "crash")
        try:
            raise error
        except type(error) as raised:
            runs.end_early(run, raised)
        names = [item.path for item in client.list_artifacts(run.run_id or "")]
        assert (runs.FAILURE in names) == kept and client.get_run(run.run_id or "").info.status == "FAILED"
        if kept:
            text = Path(client.download_artifacts(run.run_id or "", runs.FAILURE, str(tmp_path))).read_text()
            assert "test_a_crash_keeps" in text and "ZeroDivisionError" in text and "s3cret" not in text


def test_the_load_is_recorded_beside_the_work_and_goes_on_where_it_was(
    store: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, run = connect(store_uri(store)), runs.start(store, "load")
    with system.system_metrics(run, 0.05):
        time.sleep(0.3)
    run.finish()
    first = [point.step for point in client.get_metric_history(run.run_id or "", system.FIRST)]
    assert len(first) >= 2 and 0 < first[-1] - first[0] < 60_000  # milliseconds
    again = runs.start(store, "x", run_id=run.run_id)
    monkeypatch.setenv(system.INTERVAL, "60")
    with system.system_metrics(again, 0.05):
        pass  # a short run has one reading, at its end
    again.finish()
    metrics = client.get_run(run.run_id or "").data.metrics
    steps = [point.step for point in client.get_metric_history(run.run_id or "", system.FIRST)]
    assert len(steps) == len(first) + 1 and max(steps) > max(first)
    assert 0 <= metrics[system.FIRST] <= 100 and metrics["system/process_memory_usage_megabytes"] > 50


def test_no_load_is_read_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "Meter", lambda: pytest.fail("read"))
    with system.system_metrics(runs.NoRun(), 0.01):
        time.sleep(0.05)


class Nvml(ModuleType):
    """As nvidia-ml-py answers on a machine with one GPU that does not say how much power it takes."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.opened = 0

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA H200"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.159.04"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=2.5e9, total=1e10)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=73)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        raise self.NVMLError


def test_a_gpu_is_named_and_measured_and_its_driver_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    tags = environment.hardware()
    assert (tags["hardware.gpu"], tags["hardware.gpu_driver"]) == ("NVIDIA H200", "580.159.04")
    meter = system.Meter()
    assert {name: value for name, value in meter.read().items() if "gpu" in name} == {
        "system/gpu_0_memory_usage_megabytes": 2500.0,
        "system/gpu_0_memory_usage_percentage": 25.0,
        "system/gpu_0_utilization_percentage": 73.0,
    }
    meter.close()
    assert nvml.opened == 0
