"""What can happen to a training besides SIGKILL: a scheduler's stop, damaged files, full disks. Nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.config import TrackingConfig, to_dict
from pipeline.errors import CheckpointError, UserError
from pipeline.model import checkpoint
from pipeline.stages import fit, keeper, run_folder, train
from pipeline.stages.resume import FORMER, NAME, TrainingState, read_state, save_state
from pipeline.tracking.store import connect

EPOCHS = 3


def flip(path: Path) -> None:
    """One bit, in the middle of the numbers."""
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {name: load_file(folder / name / "model.safetensors") for name in ("best", "last")}


def same(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return all(torch.equal(first[kind][name], x) for kind, tensors in second.items() for name, x in tensors.items())


@pytest.fixture(scope="module")
def config(make_config: Any) -> Any:
    return make_config(training__epochs=EPOCHS)


@pytest.fixture(scope="module")
def undisturbed(config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train.train(config, folder)
    return folder


@pytest.fixture(scope="module")
def stopped(config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that saved after both of its epochs and was stopped in the third."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    epoch = fit._epoch

    def interrupted(step: Any, *rest: Any) -> Any:
        if rest[3].epoch == EPOCHS - 1:
            raise KeyboardInterrupt
        return epoch(step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_epoch", interrupted)
        patch.setattr(keeper, "SAVE_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, folder)
    return folder


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a flipped bit in the state": (
        lambda run: flip(run / NAME),
        f"{NAME} is damaged (its checksum differs); going back",
    ),
    "half a state": (lambda run: truncate(run / NAME), "going back to the one before"),
    "no last state": (lambda run: (run / NAME).unlink(), "after epoch 1"),
    "a flipped bit in the best": (lambda run: flip(run / "best/model.safetensors"), "damaged"),
    "half a card": (lambda run: truncate(run / "best/model.json"), "model.json is damaged"),
    "no checkpoints": (lambda run: [shutil.rmtree(run / name) for name in ("best", "last")], "no such checkpoint"),
    "state and checkpoints": (
        lambda run: [flip(run / name) for name in (NAME, "best/model.safetensors", "last/model.safetensors")],
        "it is written again",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_file_changes_no_number(
    what: str, config: Any, undisturbed: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    damage, expected = DAMAGES[what]
    damage(run)
    result = train.train(config, run, resume=True)
    assert expected in capsys.readouterr().err
    assert same(undisturbed, run)
    assert result.test == json.loads((undisturbed / "result.json").read_text())["test"]
    assert not list(run.glob("*.safetensors"))


def test_a_best_checkpoint_damaged_while_the_training_runs_is_noticed_at_its_end(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, epoch = tmp_path / "run", fit._epoch
    monkeypatch.setattr(keeper, "SAVE_SECONDS", -1.0)

    def damaging(step: Any, *rest: Any) -> Any:
        row, steps = epoch(step, *rest)
        if rest[3].epoch == EPOCHS - 1:
            flip(run / "best/model.safetensors")
            row["val_loss"] += 100  # this epoch is not the best, whose checkpoint nothing would replace
        return row, steps

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_epoch", damaging)
        train.train(config, run)
    _, card = checkpoint.load(run / "best")
    assert card.extra["epoch"] == EPOCHS - 1 and "test" in card.metrics


def test_two_damaged_states_end_in_one_line(config: Any, stopped: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    for name in (NAME, FORMER):
        truncate(run / name)
    with pytest.raises(CheckpointError, match=rf"{NAME} is damaged .*; start over with --fresh"):
        train.train(config, run)
    assert checkpoint.load(run / "best")[1].extra["epoch"] == 2


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Sets the largest size of a file that this process may write: a disk that is full, wherever the tests run."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_ends_the_training_in_one_line_and_space_lets_it_go_on(
    config: Any,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_files: Callable[[int], None],
) -> None:
    run, epoch = tmp_path / "run", fit._epoch
    monkeypatch.setattr(keeper, "SAVE_SECONDS", -1.0)

    def limited(step: Any, *rest: Any) -> Any:
        found = epoch(step, *rest)
        if rest[3].epoch == 1:
            small_files(10_000)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_epoch", limited)
        with pytest.raises(CheckpointError, match=r"run/best: cannot write .*File too large\); raise the limit"):
            train.train(config, run)
    small_files(resource.RLIM_INFINITY)
    state = read_state(run)
    assert state is not None and state.epoch == 1
    assert checkpoint.load(run / "best")[1].extra["epoch"] == 1
    assert not [path for path in run.rglob("*") if "tmp" in path.name or ".new" in path.name]
    train.train(config, run, resume=True)
    assert same(undisturbed, run)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 300 kB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_real_full_disk_keeps_the_former_state_and_checkpoint(small_disk: Path, example: Any) -> None:
    _, card = checkpoint.load(example.folder / "best")
    small = {"model": {"weight": torch.zeros(10_000)}}
    save_state(small_disk, TrainingState({}, "digest", epoch=1), small)
    save_state(small_disk, TrainingState({}, "digest", epoch=2), small)
    before = sorted(path.name for path in small_disk.iterdir())
    with pytest.raises(CheckpointError, match=r"No space left on device\); make room there; then the same command"):
        save_state(small_disk, TrainingState({}, "digest", epoch=3), {"model": {"weight": torch.zeros(90_000)}})
    with pytest.raises(CheckpointError, match=r"small/best: cannot write .*No space left on device\); make room"):
        checkpoint.save(small_disk / "best", {"weight": torch.zeros(90_000)}, card)
    assert sorted(path.name for path in small_disk.iterdir()) == before
    state = read_state(small_disk)
    assert state is not None and state.epoch == 2
    (small_disk / FORMER).unlink()
    save_state(small_disk, TrainingState({}, "digest", epoch=3), small)
    with run_folder.locked(small_disk), pytest.raises(OSError) as full:
        (small_disk / "filler").write_bytes(bytes(400_000))
    assert full.value.errno == errno.ENOSPC
    message = r"small: cannot be written \(No space left on device\); make room there"
    with pytest.raises(UserError, match=message), run_folder.locked(small_disk):
        raise full.value


def test_a_run_whose_identifier_a_kill_kept_from_the_folder_is_found_again(
    config: Any, example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked = replace(config, tracking=TrackingConfig(uri=example.uri, experiment="found again"))
    begin = train.start

    def killed(*given: Any) -> Any:
        begin(*given)
        raise SystemExit  # outside of what records an error in the run, as a kill is

    with monkeypatch.context() as patch:
        patch.setattr(train, "start", killed)
        with pytest.raises(SystemExit):
            train.train(tracked, tmp_path / "run")
    state = read_state(tmp_path / "run")
    assert state is not None and state.run_id is None and not state.begun
    result = train.train(tracked, tmp_path / "run", resume=True)
    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("found again").experiment_id])
    assert run.info.run_id == result.run_id and run.info.status == "FINISHED"


def test_a_training_that_never_began_may_begin_with_other_options(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "sources_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, tmp_path / "run")
    state = read_state(tmp_path / "run")
    assert state is not None and not state.begun
    shorter = replace(config, training=replace(config.training, epochs=1))
    with pytest.raises(CheckpointError, match="no unfinished training"):
        train.train(shorter, tmp_path / "run", resume=True)
    train.train(shorter, tmp_path / "run")
    assert len(json.loads((tmp_path / "run/report/history.json").read_text())) == 1


def test_a_kill_between_the_result_and_the_last_tidying_leaves_nothing_for_good(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "forget_state", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, tmp_path / "run")
    assert (tmp_path / "run" / NAME).exists()
    with pytest.raises(UserError, match="finished training"):
        train.train(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("resume*"))


def test_a_scheduler_s_stop_ends_a_training_with_143_and_loses_the_unfinished_epoch_alone(
    make_config: Any, example: Any, command: str, tmp_path: Path
) -> None:
    """SIGTERM to the whole group, workers too, and again while it is written what there is."""
    settings = to_dict(make_config(training__epochs=5000, training__workers=2))
    settings["tracking"] = {"uri": example.uri, "experiment": "preempted"}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(settings))
    with subprocess.Popen(
        [sys.executable, command, "train", str(tmp_path / "long.yaml"), "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as training:  # fmt: skip
        assert training.stderr is not None
        lines: list[str] = []
        for line in training.stderr:
            lines.append(line)
            if line.startswith("epoch   3"):
                workers = psutil.Process(training.pid).children(recursive=True)
                assert len(workers) == 2
                for pid in (training.pid, *(worker.pid for worker in workers), training.pid):
                    os.kill(pid, signal.SIGTERM)
        code = training.wait(60)
    assert code == 143 and "Traceback" not in "".join(lines), "".join(lines)
    assert lines[-1].startswith("video-lstm: ended by SIGTERM; the same command continues the training")
    assert not psutil.wait_procs(workers, timeout=5)[1]
    finished = sum(line.startswith("epoch ") for line in lines)
    state = read_state(tmp_path / "run")
    assert state is not None and state.epoch == finished >= 3 and not set(state.failed.values()) & {"decoder crashed"}
    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("preempted").experiment_id])
    assert run.info.status == "KILLED" and run.data.tags["preempted"] == f"after epoch {finished}"
    assert "failure" not in run.data.tags
    with run_folder.locked(tmp_path / "run"):
        assert checkpoint.load(tmp_path / "run/last")[1].extra["epoch"] == finished
