from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.config import RecurrentConfig
from pipeline.model.branch import Branch
from pipeline.model.cells import LAYERS
from pipeline.model.matrices import ROWS, Matrix, matrices


def found(**changes: Any) -> dict[str, Matrix]:
    branch = Branch(10, 3, RecurrentConfig(**{"hidden": 6, "layers": 2, **changes}))
    return {matrix.name: matrix for matrix in matrices(branch)}


def test_rows_are_gates_and_columns_what_they_read() -> None:
    lstm = found(kind="lstm", bidirectional=True)
    gates = "input gate, forget gate, cell candidate, output gate: 6 rows each"
    assert lstm["layer0.net.weight_ih_l0"] == Matrix(
        "layer0.net.weight_ih_l0", (24, 10), gates, "the 10 features of a moment"
    )
    assert lstm["layer0_backward.net.weight_hh_l0"].columns == "the 6 hidden values of the step before"
    assert lstm["layer1.net.weight_ih_l0"].columns == "the 12 hidden values of layer0"
    assert lstm["layer1_backward.net.bias_hh_l0"] == Matrix("layer1_backward.net.bias_hh_l0", (24,), gates, "")
    assert found(kind="rnn")["layer1.net.weight_hh_l0"].rows == "new state: 6 rows"
    assert found(projection=4)["layer0.net.weight_ih_l0"].columns == "the 4 projected features"


def test_what_is_special_is_named() -> None:
    projected = found(kind="lstm", proj_size=4)
    assert projected["layer0.net.weight_hr_l0"].rows == "the 4 projected hidden values"
    assert projected["layer0.net.weight_hh_l0"].columns == "the 4 hidden values of the step before"
    peephole = found(kind="peephole_lstm")["layer0.peephole"]
    assert peephole.rows == "to the input gate, forget gate, output gate" and "the 6 cell values" in peephole.columns
    assert found(kind="none", pooling="mean") == {}


@pytest.mark.parametrize("kind", [kind for kind in ROWS if kind in LAYERS])
def test_the_rows_are_really_those_of_the_gate(kind: str) -> None:
    """A bias of -40 on the rows that are said to be a gate's shuts this gate."""
    branch = Branch(10, 3, RecurrentConfig(kind=kind, hidden=6, layers=1))
    layer = branch.recurrent.layers[0]
    x, lengths = torch.randn(2, 4, 10), torch.tensor([4, 4])
    (bias, *_) = (m for m in matrices(branch) if "bias" in m.name and m.rows.endswith("6 rows each"))
    names = bias.rows.split(":")[0].split(", ")
    assert bias.rows.endswith("6 rows each") and len(names) * 6 == bias.shape[0]
    before = layer.gates(x, lengths, None)
    shut = []
    for index, name in enumerate(names):
        gate = {"update gate": "input"}[name] if kind == "min_gru" and index == 0 else name.removesuffix(" gate")
        if gate not in before or (kind == "slstm" and gate == "input"):  # a constant cancels in its normaliser
            continue
        parameter = layer.get_parameter(bias.name.split(".", 1)[1])
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter[6 * index : 6 * index + 6] -= 40.0
        after = layer.gates(x, lengths, None)[gate]
        assert (after <= before[gate]).all() and after.mean() < before[gate].mean() - 0.1, name
        with torch.no_grad():
            parameter.copy_(kept)
        shut.append(gate)
    assert shut


def test_maps_and_heads_are_named() -> None:
    maps = {m.name: m for m in matrices(Branch(12, 3, RecurrentConfig(kind="conv_lstm", hidden=5, layers=1), grid=2))}
    assert (
        maps["layer0.weight_ih"].columns == "the 3 channels of the map that the features of a moment are, 3 x 3 cells"
    )
    assert maps["layer0.peephole"].columns == "from the 20 cell values, one to one"
    heads = found(kind="mlstm", hidden=8)
    assert heads["layer0.weight_ih"].rows == "query, key, value, output gate: 8 rows each"
    assert heads["layer0.weight_gates"].rows == "input gates, forget gates: 4 heads each"
