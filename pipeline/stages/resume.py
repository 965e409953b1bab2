"""What a training needs to go on exactly where it was: one safetensors file, replaced in one step.

Weights, their average, optimiser moments and loss scale are tensors; the epoch, the history and the run's identifier
are JSON in the file's header. Random numbers need no state: each epoch seeds them from (seed, epoch).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.errors import CheckpointError
from pipeline.stages.average import Average

NAME = "resume.safetensors"


@dataclass
class TrainingState:
    """Where a training stands after an epoch.

    Attributes:
        config: flat configuration it was started with, to refuse a different one.
        data: digest of the split it learns from.
        run_id: MLflow run to go on with; None when tracking is off.
        epoch: epochs finished.
        history: one row of numbers per finished epoch.
        best_loss: lowest validation loss so far; None before the first.
        best_epoch: the epoch that reached it, counted from 1.
        failed: path and reason of the files that could not be read while training.
        loss_scale: state of the fp16 gradient scaler; empty without one.
        classes: class names in their order.
        inside: what was seen inside the model, one reading per finished epoch (`stages/inside.py`).
    """

    config: dict[str, Any]
    data: str
    run_id: str | None = None
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_loss: float | None = None
    best_epoch: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    loss_scale: dict[str, float] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    inside: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    folder: Path,
    state: TrainingState,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None = None,
) -> None:
    """Write the file beside its place and rename it, so that a kill at any moment leaves a whole one.

    Raises:
        CheckpointError: the disk refuses; the former file is intact.
    """
    tensors = {f"model.{name}": x.detach().cpu().contiguous() for name, x in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).cpu().contiguous()
    if average is not None:
        tensors |= {f"average.{name}": x.cpu().contiguous() for name, x in average.tensors().items()}
    temporary = folder / (NAME + ".tmp")
    try:
        save_file(tensors, temporary, metadata={"state": json.dumps(asdict(state))})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(folder / NAME)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{folder / NAME} cannot be written ({error}); is the disk full?") from None


def read_state(folder: Path) -> TrainingState | None:
    """Where the training in a folder stands; None if it holds no unfinished one.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return TrainingState(**json.loads(file.metadata()["state"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start over with --fresh") from None


def restore(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None
) -> None:
    """Load weights, their average and optimiser moments of `save_state`.

    Raises:
        CheckpointError: the file is damaged or belongs to another model.
    """
    path = folder / NAME
    weights: dict[str, torch.Tensor] = {}
    averaged: dict[str, torch.Tensor] = {}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dictionary)
                kind, _, rest = name.partition(".")
                if kind == "model":
                    weights[rest] = file.get_tensor(name)
                elif kind == "average":
                    averaged[rest] = file.get_tensor(name)
                else:
                    index, _, moment = rest.partition(".")
                    moments.setdefault(int(index), {})[moment] = file.get_tensor(name)
        model.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if average is not None:
            average.load(averaged)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} does not fit this model ({error}); start over with --fresh") from None
