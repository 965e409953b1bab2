"""What the rows and columns of a recurrent layer's weights mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from pipeline.model.branch import Branch
from pipeline.model.inside import named_layers

ROWS = {
    "gru": ("reset gate", "update gate", "new state"),
    "lstm": ("input gate", "forget gate", "cell candidate", "output gate"),
    "peephole_lstm": ("input gate", "forget gate", "cell candidate", "output gate"),
    "layer_norm_lstm": ("input gate", "forget gate", "cell candidate", "output gate"),
    "conv_lstm": ("input gate", "forget gate", "cell candidate", "output gate"),
    "slstm": ("input gate", "forget gate", "cell candidate", "output gate"),
    "mlstm": ("query", "key", "value", "output gate"),
    "coupled_lstm": ("forget gate", "cell candidate", "output gate"),
    "min_gru": ("update gate", "candidate"),
    "min_lstm": ("forget gate", "input gate", "candidate"),
}
"""What each block of hidden-size rows computes, in its order; one block, the new state, where a kind is not named."""
PEEPHOLES = ("input gate", "forget gate", "output gate")


@dataclass(frozen=True)
class Matrix:
    """One parameter of a recurrent layer.

    Attributes:
        name: layer and parameter.
        shape: its shape.
        rows: what its first axis stands for.
        columns: what its second axis stands for; empty for a vector.
    """

    name: str
    shape: tuple[int, ...]
    rows: str
    columns: str


def matrices(branch: Branch) -> list[Matrix]:
    """Every parameter of the branch's recurrent layers, bottom layer first."""
    found = []
    source = "projected features" if not isinstance(branch.projection, nn.Identity) else "features of a moment"
    for name, layer in named_layers(branch.recurrent).items():
        depth = int(name.removeprefix("layer").removesuffix("_backward"))
        below = source if depth == 0 else f"hidden values of layer{depth - 1}"
        found += [
            _matrix(f"{name}.{parameter}", branch.recurrent.kind, tuple(value.shape), below)
            for parameter, value in layer.named_parameters()
        ]
    return found


def _matrix(name: str, kind: str, shape: tuple[int, ...], below: str) -> Matrix:
    parameter = name.removesuffix("_l0").split(".", 1)[1]
    if "weight_hr" in parameter:
        return Matrix(name, shape, f"the {shape[0]} projected hidden values", f"the {shape[1]} values before it")
    if "peephole" in parameter:
        return Matrix(
            name, shape, f"to the {', '.join(PEEPHOLES)}", f"from the {math.prod(shape[1:])} cell values, one to one"
        )
    if parameter.startswith("norm_cell"):
        return Matrix(name, shape, f"the {shape[0]} cell values", "")
    columns = ""
    if len(shape) > 1:
        before = "weight_hh" in parameter
        columns = f"the {shape[1]} " + ("hidden values of the step before" if before else below)
    if kind == "conv_lstm" and columns:
        of = "the hidden map of the step before" if before else f"the map that the {below} are"
        columns = f"the {shape[1]} channels of {of}, {shape[2]} x {shape[3]} cells"
    if parameter.endswith("_gates"):  # mLSTM: a number per head
        return Matrix(name, shape, f"input gates, forget gates: {shape[0] // 2} heads each", columns)
    return Matrix(name, shape, _blocks(kind, shape[0]), columns)


def _blocks(kind: str, rows: int) -> str:
    names = ROWS.get(kind, ("new state",))
    return f"{', '.join(names)}: {rows // len(names)} rows each" if len(names) > 1 else f"{names[0]}: {rows} rows"
