"""What a training needs to go on exactly where it was: one safetensors file, replaced in one step, and the one before.

Weights, their average and optimiser moments are tensors, in sections; the epoch, the history and the run's identifier
are JSON in the file's header, beside a checksum of all of it: safetensors does not notice a flipped bit. Random numbers
need no state: each epoch seeds them from (seed, epoch).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.disk import refusal, replacing
from pipeline.errors import CheckpointError
from pipeline.stages.progress import say

NAME = "resume.safetensors"
FORMER = "resume-former.safetensors"
FORMAT = "2"

Sections = dict[str, dict[str, Tensor]]
"""By section (model, average, best, optimizer), tensors by name."""


@dataclass
class TrainingState:
    """Where a training stands after an epoch.

    Attributes:
        config: flat configuration it was started with, to refuse a different one.
        data: digest of the split it learns from.
        run_id: MLflow run to go on with; None when tracking is off, or when it is not made yet.
        epoch: epochs finished.
        history: one row of numbers per finished epoch.
        best_loss: lowest validation loss so far; None before the first.
        best_epoch: the epoch that reached it, counted from 1.
        failed: path and reason of the files that could not be read while training.
        loss_scale: state of the fp16 gradient scaler; empty without one.
        classes: class names in their order.
        inside: what was seen inside the model, one reading per finished epoch (`stages/inside.py`).
        key: names this training in its MLflow run, which is found by it when a kill came before `run_id` was kept.
        begun: the model is ready and its weights are kept; before, the features may be missing.
        checkpoints: digests of the checkpoints that belong to this state, by the name of their folder.
        origin: the model it started from (`stages/start.py`), which may be gone when it goes on; empty without one.
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
    key: str = ""
    begun: bool = False
    checkpoints: dict[str, str] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)


def save_state(folder: Path, state: TrainingState, sections: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put the state in its place; the one that is there becomes the former, so that a damaged one costs little.

    A kill at any moment leaves one of the two whole.

    Args:
        folder: the training's.
        state: the numbers.
        sections: tensors by section and name; a section may be empty.

    Raises:
        CheckpointError: the disk refuses; the states that were there are intact.
    """
    tensors = {
        f"{section}.{name}": x.detach().cpu().contiguous()
        for section, found in sections.items()
        for name, x in found.items()
    }
    text = json.dumps(asdict(state))
    header = {"format": FORMAT, "state": text, "sha256": _checksum(text, tensors)}
    try:
        with replacing(folder / NAME, former=folder / FORMER) as temporary:
            save_file(tensors, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: the training's state cannot be written {refusal(error)}; then the same command goes on"
        ) from None


def read_state(folder: Path) -> TrainingState | None:
    """Where the training in a folder stands, from the last state that is whole; None if it holds no unfinished one.

    Raises:
        CheckpointError: what is there is damaged, or of another version.
    """
    found = _newest(folder)
    return None if found is None else found[1]


def recover(folder: Path) -> TrainingState | None:
    """`read_state`, for whoever will write here: a damaged last state is named and removed, so that it never takes the
    place of the whole one before it.

    Raises:
        CheckpointError: see `read_state`.
    """
    found = _newest(folder)
    if found is None:
        return None
    _, state, damage = found
    if damage:
        say(f"{damage}; going back to the one before")
        (folder / NAME).unlink(missing_ok=True)
    return state


def read_sections(folder: Path) -> Sections:
    """The tensors that belong to `read_state`.

    Raises:
        CheckpointError: see there; or there are none.
    """
    found = _newest(folder)
    if found is None:
        raise CheckpointError(f"{folder} holds no unfinished training")
    sections: Sections = {}
    with safe_open(found[0], framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (not a dictionary)
            section, _, rest = name.partition(".")
            sections.setdefault(section, {})[rest] = file.get_tensor(name)
    return sections


def _newest(folder: Path) -> tuple[Path, TrainingState, str] | None:
    """The last whole state with its file, and what is wrong with a later one; None where there is no file."""
    damage: list[CheckpointError] = []
    for path in (folder / NAME, folder / FORMER):
        if not path.exists():
            continue
        try:
            return path, _read(path), str(damage[0]) if damage else ""
        except CheckpointError as error:
            damage.append(error)
    if damage:
        raise CheckpointError(f"{damage[0]}; start over with --fresh")
    return None


def _read(path: Path) -> TrainingState:
    """One file's state, if all of the file is what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path} was written by another version of video-lstm, or is damaged")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["sha256"] != _checksum(header["state"], tensors):
            raise CheckpointError(f"{path} is damaged (its checksum differs)")
        return TrainingState(**json.loads(header["state"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from None


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Sha256 (hex) over the state's text and each tensor's name, type, shape and bytes."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(raw(tensor).numpy().data)
    return found.hexdigest()


def raw(tensor: Tensor) -> Tensor:
    """uint8 (bytes): a contiguous tensor's memory; two are equal only where every bit is, zeros and NaN too."""
    return tensor.reshape(-1).view(torch.uint8)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers of each parameter, as the tensors of a section."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, found in optimizer.state_dict()["state"].items()
        for name, value in found.items()
    }


def load_moments(optimizer: torch.optim.Optimizer, section: Mapping[str, Tensor]) -> None:
    """The inverse of `moments`; rates and parameter groups stay those of the optimiser.

    Raises:
        ValueError: the section belongs to other parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in section.items():
        index, _, moment = name.partition(".")
        state.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
