"""Two processes over gloo, started by torchrun as users start them: the numbers of one, one run, and restarts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.config import to_dict
from pipeline.data.clips import Plan
from pipeline.errors import DistributedError
from pipeline.stages import distributed
from pipeline.stages.distributed import Place, alone, from_first, gather, joined, mine, started
from pipeline.stages.ingest import ingest
from pipeline.stages.sources import FileSource
from pipeline.stages.train import train
from pipeline.tracking.store import connect

CLOSE = 1e-5
"""Largest distance of a weight that another order of summation may cause here."""
EPOCHS = 3

KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pipeline.cli import main
from pipeline.stages import keeper, sources

keeper.SAVE_SECONDS = 0.0
read = sources.FeatureSource.batches

def batches(self, epoch, order, *rest):
    for number, batch in enumerate(read(self, epoch, order, *rest)):
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1" and epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

sources.FeatureSource.batches = batches
main(sys.argv[1:])
"""

TOGETHER = """
import json, os, sys
import torch
from torch import nn
from pipeline.errors import DataError, DistributedError
from pipeline.stages import distributed
from pipeline.stages.distributed import barrier, bytes_from_first, from_first, gather, is_first, joined, mine, place
from pipeline.stages.evaluate import evaluate
from pipeline.stages.models import load_model
from pipeline.stages.replicas import average_statistics, share_state, sum_gradients, total

try:
    with joined(torch.device("cpu")):
        with joined(torch.device("cpu")):
            rank = place().rank
        assert rank == int(os.environ["RANK"]) and place().world == 2
        assert gather({"rank": rank, "x": 0.1 * rank}) == [{"rank": 0, "x": 0.0}, {"rank": 1, "x": 0.1}]
        assert from_first(lambda: [rank, "as it is"]) == [0, "as it is"]
        assert bytes_from_first(lambda: b"") == b""
        assert bytes_from_first(lambda: bytes(range(rank, 9))) == bytes(range(9))
        assert [part for own in gather(list(range(7))[mine()]) for part in own] == [0, 2, 4, 6, 1, 3, 5]
        assert total(float(rank + 1), torch.device("cpu")) == 3.0

        torch.manual_seed(rank)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(model.parameters())
        if rank == 0:
            model(torch.randn(5, 3)).sum().backward()
            optimizer.step()
        more = torch.tensor([float(rank)])
        share_state(model, optimizer, {"more": more})
        sums = [float(x.double().sum()) for x in [*model.state_dict().values(), more]]
        sums += [float(x.double().sum()) for found in optimizer.state_dict()["state"].values() for x in found.values()]
        assert gather(sums)[0] == gather(sums)[1] and len(optimizer.state_dict()["state"]) == 6

        optimizer.zero_grad(set_to_none=True)
        inputs = torch.arange(15.0).view(5, 3)
        model.eval()
        model[2].bias.requires_grad_(False)
        own = model(inputs[:5] if rank == 0 else inputs[:0]).sum() / 5 if rank == 0 else None
        if own is not None:
            own.backward()
        extra = nn.Parameter(torch.zeros(2))  # has a gradient nowhere
        loss = sum_gradients([*model.parameters(), extra], torch.zeros(()) if own is None else own.detach())
        grads = [float(p.grad.sum()) for p in model.parameters() if p.requires_grad]
        assert extra.grad is None and model[2].bias.grad is None
        assert gather([grads, float(loss)])[0] == gather([grads, float(loss)])[1] and any(grads)

        model.train()
        model[1].running_mean.fill_(rank)
        average_statistics(model, model.state_dict())
        assert model[1].running_mean.tolist() == [0.5] * 4
        metrics = evaluate(load_model(sys.argv[1], "cpu"), None, workers=0)
        if is_first():
            with open(sys.argv[2], "w") as file:
                json.dump(metrics, file)
        barrier()
        if is_first():
            raise DataError("no clips on purpose")
        barrier()
except DistributedError as error:
    print("told:", error, flush=True)
except DataError:
    print("raised", flush=True)
else:
    print("nothing happened", flush=True)
"""


def torchrun(*arguments: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    engine = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*engine, "--max-restarts", str(restarts), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)


@pytest.fixture(scope="module")
def config(make_config: Any, example: Any) -> Any:
    """11 of the 12 training clips make a batch: the second process has nothing of the last one, and no validation."""
    changes = {"video__streams": "flow", "recurrent__dropout": 0.0, "tracking": example.config.tracking}
    return make_config(**changes, training__epochs=EPOCHS, training__batch_size=11)


@pytest.fixture(scope="module")
def alone_trained(config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(config, folder)
    return folder


def written(config: Any, folder: Path, experiment: str) -> str:
    nested = to_dict(config)
    nested["tracking"]["experiment"] = experiment
    (folder / "tiny.yaml").write_text(yaml.safe_dump(nested))
    return str(folder / "tiny.yaml")


def differences(one: Path, two: Path) -> dict[str, float]:
    found = {}
    for kind in ("best", "last"):
        ours, theirs = (load_file(folder / kind / "model.safetensors") for folder in (one, two))
        assert ours.keys() == theirs.keys()
        found[kind] = max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)
    return found


def history(folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / "report/history.json").read_text())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_two_processes_come_to_what_one_comes_to_and_a_killed_one_starts_again(
    alone_trained: Path, config: Any, example: Any, tmp_path: Path
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    arguments = ["train", written(config, tmp_path, "together"), "--out", str(tmp_path / "run"), "--json"]
    done = torchrun(str(tmp_path / "killed.py"), *arguments, restarts=1)
    assert done.returncode == 0, done.stderr
    assert f"continuing the training in {tmp_path / 'run'} after epoch 2" in done.stderr
    assert done.stderr.count("epoch   3  train loss") == 1

    result = json.loads(done.stdout)  # one process printed
    ours, one = result["test"], json.loads((alone_trained / "result.json").read_text())["test"]
    assert ours["n"] == one["n"] == 12 and ours["expected"] == one["expected"] == 14
    assert [row["path"] for row in ours["failed"]] == [row["path"] for row in one["failed"]]
    assert ours["confusion"] == one["confusion"] and ours["top1"] == one["top1"]
    assert ours["log_loss"] == pytest.approx(one["log_loss"], abs=CLOSE)

    assert all(value <= CLOSE for value in differences(alone_trained, tmp_path / "run").values())
    for row, other in zip(history(alone_trained), history(tmp_path / "run"), strict=True):
        assert row == pytest.approx(other, rel=1e-5)

    client = connect(example.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("together").experiment_id])
    assert run.info.run_id == result["run_id"] and run.info.status == "FINISHED"
    recorded = client.get_metric_history(run.info.run_id, "val/loss")
    assert [entry.step for entry in recorded] == [1, 2, 3]
    assert not list(tmp_path.glob("run/*.tmp*")) and not (tmp_path / "run/resume.safetensors").exists()


def test_what_they_tell_each_other_how_they_score_a_model_and_that_a_failure_is_told(
    alone_trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "together.py").write_text(TOGETHER)
    done = torchrun(str(tmp_path / "together.py"), str(alone_trained), str(tmp_path / "metrics.json"))
    assert done.returncode == 0, done.stderr
    ours, one = (json.loads(path.read_text()) for path in (tmp_path / "metrics.json", alone_trained / "result.json"))
    assert {name: ours[name] for name in one["test"]} == one["test"]  # to the bit, and each clip once
    assert sorted(done.stdout.split("\n")) == ["", "raised", "told: process 0 failed: no clips on purpose"]


def test_parts_of_batches_make_up_the_batches(make_config: Any) -> None:
    config = make_config(training__batch_size=5)
    files = ingest(config.data).files("train")
    order = np.random.default_rng(0).permutation(len(files)).tolist()
    source = FileSource(files, Plan.of(config), config.training, 0, 0)
    wholes = list(source.batches(1, order))
    parts = [list(source.batches(1, order, slice(rank, None, 3))) for rank in range(3)]
    assert [len(batch.targets) for batch in wholes] == [5, 5, 2]
    assert [[len(batch.targets) for batch in part] for part in parts] == [[2, 2, 1], [2, 2, 1], [1, 1, 0]]
    for number, whole in enumerate(wholes):
        for rank in range(3):
            part = parts[rank][number]
            assert torch.equal(part.targets, whole.targets[rank::3])
            for row, inputs in enumerate(part.inputs.get("rgb", ())):  # the same views
                length = int(part.lengths[row])
                assert torch.equal(inputs[:length], whole.inputs["rgb"][rank + 3 * row][:length])


def test_one_process_does_all_of_it_without_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(torch.device("cpu")):
        assert not torch.distributed.is_initialized() and distributed.place() == Place()
        assert from_first(lambda: 3) == 3 and gather("x") == ["x"] and [1, 2][mine()] == [1, 2]
        alone("anything")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert started() == Place(1, 2, 0, 1)
    with pytest.raises(DistributedError, match="classify runs in one process"):
        alone("classify")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(DistributedError, match="RANK 2 is none of WORLD_SIZE 2"):
        started()
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(DistributedError, match="no numbers"):
        started()


def test_a_restart_never_begins_again(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(Exception, match=r"--fresh.*--max-restarts 0"):
        train(config, tmp_path / "run", fresh=True)


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_two_gpus_come_to_what_one_comes_to(make_config: Any, tmp_path: Path) -> None:
    changes = {"video__streams": "flow", "recurrent__dropout": 0.0, "training__precision": "fp32"}
    config = make_config(**changes, training__device="cuda", training__epochs=EPOCHS)
    train(config, tmp_path / "one")
    arguments = ["train", written(config, tmp_path, "gpus"), "--out", str(tmp_path / "run")]
    done = torchrun("-m", "pipeline", *arguments)
    assert done.returncode == 0, done.stderr
    assert all(value <= 1e-4 for value in differences(tmp_path / "one", tmp_path / "run").values())
