"""SIGKILL at the worst moments, in a process of its own; then the same training again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipeline.config import to_dict
from pipeline.errors import CheckpointError, DataError
from pipeline.options import load_config
from pipeline.stages import fit
from pipeline.stages.resume import (
    FORMER,
    NAME,
    Sections,
    TrainingState,
    load_moments,
    moments,
    read_sections,
    read_state,
    recover,
    save_state,
)  # fmt: skip
from pipeline.stages.train import train
from pipeline.tracking.store import connect

KILLED_AT = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pipeline.cli import main
from pipeline.stages import keeper, resume, sources

folder, moment, workers = sys.argv[1:]
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
keeper.SAVE_SECONDS = 0.0
read, save, write = sources.FileSource.batches, keeper.save_state, resume.save_file

def batches(self, epoch, order, *rest):
    for number, batch in enumerate(read(self, epoch, order, *rest)):
        if epoch == 2 and number == 1 and moment == "mid-epoch":
            kill()
        yield batch

def save_state(folder, state, *rest):
    if state.epoch == 3 and moment == "between checkpoint and state":
        kill()
    if state.epoch == 3 and moment == "within the state's file":
        resume.save_file = half_written
    save(folder, state, *rest)

def half_written(tensors, path, **header):
    write(tensors, path, **header)
    os.truncate(path, os.path.getsize(path) // 2)
    kill()

sources.FileSource.batches, keeper.save_state = batches, save_state
main(["train", f"{folder}/tiny.yaml", "--out", f"{folder}/run", "--training.workers", workers])
"""
EPOCHS = 4


@pytest.fixture(scope="module")
def undisturbed(make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(make_config(training__epochs=EPOCHS), folder)
    return folder


@pytest.mark.parametrize(
    ("moment", "workers", "safe"),
    [("mid-epoch", 2, 2), ("between checkpoint and state", 0, 2), ("within the state's file", 0, 2)],
)
def test_a_killed_training_ends_as_if_nothing_had_happened(
    undisturbed: Path,
    example: Any,
    make_config: Any,
    tmp_path: Path,
    command: str,
    moment: str,
    workers: int,
    safe: int,
) -> None:
    uri = example.uri
    nested = to_dict(make_config(training__epochs=EPOCHS)) | {"tracking": {"uri": uri, "experiment": moment}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(nested))
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, str(tmp_path), moment, str(workers)], check=False)
    assert killed.returncode == -signal.SIGKILL
    run_folder = tmp_path / "run"
    state = read_state(run_folder)
    assert state is not None and state.epoch == safe and len(state.history) == safe
    (run,) = connect(uri).search_runs([connect(uri).get_experiment_by_name(moment).experiment_id])
    assert run.info.status == "RUNNING" and run.info.run_id == state.run_id

    if moment == "mid-epoch":
        again = [command, "train", str(tmp_path / "tiny.yaml"), "--out", str(run_folder), "--resume", "--json"]
        done = subprocess.run(again, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run_id"] == state.run_id
        assert f"continuing the training in {run_folder} after epoch 2" in done.stderr
    else:
        assert train(load_config(str(tmp_path / "tiny.yaml")), run_folder).run_id == state.run_id

    for kind in ("best", "last"):
        one, two = (load_file(folder / kind / "model.safetensors") for folder in (undisturbed, run_folder))
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    rows = [json.loads((folder / "report/history.json").read_text()) for folder in (undisturbed, run_folder)]
    for row in rows[0] + rows[1]:
        del row["seconds"]
    assert rows[0] == rows[1]
    (run,) = connect(uri).search_runs([run.info.experiment_id])
    assert run.info.status == "FINISHED"
    for name in ("train/loss", "val/loss"):
        recorded = connect(uri).get_metric_history(run.info.run_id, name)
        assert [entry.step for entry in recorded] == list(range(1, EPOCHS + 1))
        assert [entry.value for entry in recorded] == [row[name.replace("/", "_")] for row in rows[0]]


def test_a_training_does_not_go_on_with_other_clips(
    make_config: Any, tiny_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_clips, tmp_path / "clips")
    config = make_config(data__root=str(tmp_path / "clips"))

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    next((tmp_path / "clips/red").glob("*g01*")).unlink()
    with pytest.raises(DataError, match=r"the data changed.*--fresh"):
        train(config, tmp_path / "run")


def model_and_optimizer(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).square().mean().backward()
    optimizer.step()
    return model, optimizer


def sections_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Sections:
    return {"model": model.state_dict(), "optimizer": moments(optimizer)}


def test_state_weights_and_moments_come_back_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(0)
    state = TrainingState({"seed": 0}, "digest", "run", 3, [{"epoch": 3.0}], 0.5, 2, {"a": "empty"}, {"scale": 2.0})
    save_state(tmp_path, state, sections_of(model, optimizer))
    assert read_state(tmp_path) == state
    other, its_optimizer = model_and_optimizer(1)
    found = read_sections(tmp_path)
    other.load_state_dict(found["model"])
    load_moments(its_optimizer, found["optimizer"])
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    ours, theirs = optimizer.state_dict()["state"], its_optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[i][name], theirs[i][name]) for i in ours for name in ours[i])


def test_a_write_that_fails_keeps_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = sections_of(*model_and_optimizer(0))
    save_state(tmp_path, TrainingState({}, "digest", epoch=1), sections)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("pipeline.disk.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left on device\); make room there; then the same command"):
        save_state(tmp_path, TrainingState({}, "digest", epoch=2), sections)
    found = read_state(tmp_path)
    assert found is not None and found.epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def truncate(path: Path, _: int) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def zero(path: Path, _: int) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << position % 8
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, zero, flip])
def test_a_damaged_state_gives_way_to_the_one_before(
    tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for epoch in (1, 2, 3):
        sections = sections_of(*model_and_optimizer(epoch))
        save_state(tmp_path, TrainingState({}, "digest", epoch=epoch), sections)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FORMER, NAME]
    damage(tmp_path / NAME, -30)
    found = recover(tmp_path)
    assert found is not None and found.epoch == 2
    assert f"{NAME} is damaged" in capsys.readouterr().err
    assert torch.equal(read_sections(tmp_path)["model"]["0.weight"], model_and_optimizer(2)[0].state_dict()["0.weight"])
    save_state(tmp_path, TrainingState({}, "digest", epoch=3), sections)
    damage(tmp_path / NAME, -30)  # the damaged one did not take the place of the former
    found = read_state(tmp_path)
    assert found is not None and found.epoch == 2
    damage(tmp_path / FORMER, 200)
    with pytest.raises(CheckpointError, match=rf"{NAME} is damaged.*--fresh"):
        recover(tmp_path)


@given(position=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_no_flipped_bit_is_overlooked(position: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    folder.mkdir(exist_ok=True)
    (folder / FORMER).unlink(missing_ok=True)
    state = TrainingState({"seed": 0}, "digest", history=[{"epoch": 1.0}])
    save_state(folder, state, sections_of(*model_and_optimizer(0)))
    (folder / FORMER).unlink(missing_ok=True)
    flip(folder / NAME, position)
    with pytest.raises(CheckpointError):
        read_state(folder)


def test_a_state_of_another_version_is_named(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    tensors = {"model.weight": torch.zeros(2)}
    save_file(tensors, tmp_path / NAME, {"state": json.dumps({"config": {}, "data": "digest", "epoch": 3})})
    with pytest.raises(CheckpointError, match=r"another version.*--fresh"):
        recover(tmp_path)
