from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import TrackingConfig
from pipeline.errors import CheckpointError, ConfigError, TrackingError
from pipeline.stages import devices
from pipeline.stages.devices import choose_device, choose_precision, choose_workers, shares_cores
from pipeline.stages.distributed import Place
from pipeline.stages.models import load_model


def test_a_model_is_a_checkpoint_folder_a_trainings_folder_or_a_run(example: Any) -> None:
    tracking = TrackingConfig(uri=example.uri)
    names = [f"{example.folder}/best", str(example.folder), f"runs:/{example.result.run_id}"]
    names.append(f"runs:/{example.result.run_id}/checkpoint")
    models = [load_model(name, "cpu", tracking) for name in names]
    assert len({model.digest for model in models}) == 1
    assert {tuple(model.classes) for model in models} == {("blue", "green", "red")}
    assert not any(model.model.training for model in models)
    last = load_model(f"{example.folder}/last", "cpu")
    assert last.card.extra["epoch"] == 3


def test_what_is_not_there_is_named(example: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        load_model(str(tmp_path))
    with pytest.raises(TrackingError, match="0123456789"):
        load_model("runs:/0123456789", "cpu", TrackingConfig(uri=example.uri))


def test_devices_precisions_and_workers() -> None:
    assert choose_device("cpu").type == "cpu"
    for name in ("gpu", "cuda:99", ""):
        with pytest.raises(ConfigError) as error:
            choose_device(name)
        assert f"'{name}'" in str(error.value) and "\n" not in str(error.value)
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == torch.float32 and choose_precision("bf16", cpu) == torch.bfloat16
    assert choose_workers(0) == 0 and choose_workers(3) == 3 and 1 <= choose_workers(-1) <= 8


def test_a_model_takes_turns_with_the_processes_that_keep_all_its_cores_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "usable_cores", lambda: 4)
    assert [shares_cores(torch.device("cpu"), workers) for workers in (0, 1, 3, 4, 8)] == [False] * 3 + [True] * 2
    assert not shares_cores(torch.device("cuda"), 4) and not shares_cores(torch.device("mps"), 4)
    monkeypatch.setattr(devices, "started", lambda: Place(rank=1, world=2, local_rank=1, local_world=2))
    assert [shares_cores(torch.device("cpu"), workers) for workers in (1, 2)] == [False, True]
