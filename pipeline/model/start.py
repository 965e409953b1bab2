"""A model that starts with the weights of another one of the same build."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.model.classifier import Classifier


def take_over(model: Classifier, other: Classifier, classes: Sequence[str], known: Sequence[str]) -> list[str]:
    """Copy the weights and buffers of another model into one, in place.

    The rows of the output layers belong to classes: each goes to the class of its name, wherever that stands. Those of
    a class that the other model does not know stay as they are. Models of numbers take over all.

    Args:
        model: is changed, unless an error is raised.
        other: of the same streams, encoders and recurrence.
        classes, known: names in the order of the logits of `model` and of `other`; empty where they answer numbers.

    Returns:
        The classes that `other` does not know.

    Raises:
        CheckpointError: the models are built differently, or only one of them answers numbers.
    """
    if model.numeric != other.numeric:
        raise CheckpointError("one of the models answers with classes, the other one with numbers")
    before = dict(model.state_dict())
    after = {}
    found = other.state_dict()
    rows = [] if model.numeric else [(classes.index(name), known.index(name)) for name in known if name in classes]
    for name in sorted(before.keys() | found.keys()):
        if name not in before or name not in found:
            raise CheckpointError(f"only one of the models has '{name}'")
        by_class = _by_class(name) and not model.numeric
        if before[name].shape[by_class:] != found[name].shape[by_class:]:
            shapes = f"{tuple(found[name].shape)} and not {tuple(before[name].shape)}"
            raise CheckpointError(f"'{name}' has the shape {shapes}")
        after[name] = _mixed(before[name], found[name], rows) if by_class else found[name]
    model.load_state_dict(after)
    return [name for name in classes if name not in known]


def _by_class(name: str) -> bool:
    """Whether the first axis of a branch's tensor is the classes: `branches.STREAM.output.weight` and `.bias`."""
    return name.startswith("branches.") and name.split(".")[2] == "output"


def _mixed(own: Tensor, other: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    mixed = own.clone()
    if rows:
        to, of = torch.tensor(rows, device=own.device).T
        mixed[to] = other.to(own.device)[of]
    return mixed
