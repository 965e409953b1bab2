"""What a recurrent layer did: for every member the equations that the page shows hold for the numbers that it shows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.config import RecurrentConfig
from pipeline.model.branch import Branch
from pipeline.model.cells import LAYERS
from pipeline.model.trace import FORMS, Trace, half_lives, traces

KINDS = [(kind, {}) for kind in LAYERS]
KINDS += [("lstm", {"zoneout": 0.2}), ("peephole_lstm", {"zoneout": 0.2}), ("lstm", {"proj_size": 3})]
GRID = 2


def branch(kind: str, **changes: object) -> Branch:
    torch.manual_seed(3)
    config = RecurrentConfig(kind=kind, hidden=4, layers=2, **changes)  # type: ignore[arg-type]
    return Branch(8, 3, config, grid=GRID).eval()


def after(v: dict[str, Tensor], form: str, z: float) -> dict[str, Tensor]:
    """What the equations of `FORMS` give for the values on their right side."""
    if form in ("rnn", "irnn", "mlstm"):
        return {"hidden": v["output"] * v["read"]} if form == "mlstm" else {}
    if form == "gru":
        return {"hidden": v["update"] * v["hidden_before"] + (1 - v["update"]) * v["cell"]}
    if form == "minimal":
        return {"hidden": v["forget"] * v["hidden_before"] + v["input"] * v["cell"]}
    if form == "slstm":
        state = (1 - v["input"]) * v["state_before"] + v["input"] * v["cell"]
        return {"state": state, "hidden": v["output"] * v["state"]}
    new = v["forget"] * v["state_before"] + v["input"] * v["cell"]
    if form == "zoneout":
        found = {"new": new, "state": z * v["state_before"] + (1 - z) * v["new"]}
        found["inner"] = v["output"] * torch.tanh(v["new"])
        return found | {"hidden": z * v["hidden_before"] + (1 - z) * v["inner"]}
    last = {"lstm": "hidden", "layer_norm": "hidden", "projected": "inner"}[form]
    squashed = torch.tanh(v["normalised" if form == "layer_norm" else "state"])
    return {"state": new, last: v["output"] * squashed}


def check(trace: Trace) -> None:
    values = trace.values
    for name, expected in after(values, trace.form, trace.zoneout).items():
        torch.testing.assert_close(values[name], expected, atol=1e-6, rtol=1e-5)
    for gate, parts in trace.sums.items():
        if trace.form == "gru" and gate == "cell":
            inside = parts["input"] + parts["bias"] + values["reset"] * parts["hidden"]
        else:
            inside = torch.stack(list(parts.values())).sum(0)
        squash = {"cell": torch.tanh, "hidden": torch.relu if trace.form == "irnn" else torch.tanh}
        torch.testing.assert_close(values[gate], squash.get(gate, torch.sigmoid)(inside), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_the_numbers_of_every_member_satisfy_its_equations(kind: str, changes: dict[str, object]) -> None:
    found = traces(branch(kind, **changes), torch.randn(1, 6, 8), lambda output: output[0, 1])
    assert list(found) == ["layer0", "layer1"]
    for trace in found.values():
        assert trace.form in FORMS and trace.influence is not None
        check(trace)
    assert {trace.form for trace in found.values()} != {"lstm"} or "lstm" in kind


def test_a_layer_that_reads_backwards_is_told_in_the_order_of_the_clip() -> None:
    model = branch("lstm", bidirectional=True)
    x = torch.randn(1, 6, 8)
    found = traces(model, x, lambda output: output[0, 0])
    assert list(found) == ["layer0", "layer0_backward", "layer1", "layer1_backward"]
    values = found["layer0_backward"].values
    check(found["layer0_backward"])
    torch.testing.assert_close(values["state_before"][:-1], values["state"][1:])  # it comes from the later moments
    assert not values["state_before"][-1].any()
    torch.testing.assert_close(
        values["hidden"], model.recurrent.backward_layers[0](x.flip(1), torch.tensor([6]))[0][0].flip(0)
    )


def test_influence_is_the_gradient_that_reaches_a_hidden_state_times_it() -> None:
    model = branch("lstm")
    trace = traces(model, torch.randn(1, 5, 8), lambda output: output[0, 2])["layer1"]
    assert model.pooling is not None and model.pooling.kind == "last" and trace.influence is not None
    assert not trace.influence[:-1].any()  # of the last layer, pooling reads the last step alone
    torch.testing.assert_close(trace.influence[-1], trace.values["hidden"][-1] * model.output.weight[2].detach())


def test_half_lives_are_seconds_per_unit() -> None:
    kept = torch.tensor([[0.3, 0.3, 0.3], [0.5, 1.0, 0.0], [0.5, 1.0, 0.5]])  # the first row multiplies nothing
    assert half_lives(kept, 0.2).tolist() == pytest.approx([0.2, math.inf, 0.0])
    assert half_lives(torch.tensor([[0.25]]), 1.0).tolist() == pytest.approx([0.5])


def test_a_model_without_recurrence_has_no_traces() -> None:
    assert traces(branch("none"), torch.randn(1, 4, 8), lambda output: output[0, 0]) == {}
