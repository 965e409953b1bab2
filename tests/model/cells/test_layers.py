"""Each layer against torch's own, its start values, its gates, and what is random about it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import RecurrentConfig
from pipeline.errors import ConfigError
from pipeline.model.cells import LAYERS, build_layer, layer_norm
from pipeline.model.cells.fused import FusedLayer
from pipeline.model.cells.initialise import chrono_bias
from pipeline.model.cells.layer_norm import LayerNormLSTMLayer
from pipeline.model.cells.lstm import LSTMLayer
from pipeline.model.cells.steps import Layer
from tests.equations import layer_norm_reference

LENGTHS = torch.tensor([6, 3, 1])
WITH_GATES = [kind for kind in LAYERS if kind not in ("rnn", "irnn")]


def make(kind: str, size: int = 5, hidden: int = 4, **more: Any) -> Layer:
    torch.manual_seed(0)
    return build_layer(size, RecurrentConfig(kind=kind, hidden=hidden, layers=1, **more))  # type: ignore[arg-type]


def clips(size: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(3, 6, size, dtype=dtype)
    x[1, 3:] = x[2, 1:] = 0
    return x.requires_grad_()


def lstm_of(layer: LSTMLayer | LayerNormLSTMLayer) -> nn.LSTM:
    """torch's LSTM with a layer's weights."""
    net = nn.LSTM(layer.weight_ih.shape[1], layer.output_size, batch_first=True, dtype=layer.weight_ih.dtype)
    with torch.no_grad():
        net.weight_ih_l0.copy_(layer.weight_ih)
        net.weight_hh_l0.copy_(layer.weight_hh)
        net.bias_ih_l0.copy_(layer.bias)
        net.bias_hh_l0.zero_()
    return net


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kind", ["lstm", "peephole_lstm", "layer_norm_lstm"])
def test_without_what_it_adds_a_layer_is_torch_lstm(
    kind: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RecurrentConfig(kind=kind, hidden=4, layers=1)  # type: ignore[arg-type]
    torch.manual_seed(0)
    layer = (LayerNormLSTMLayer if kind == "layer_norm_lstm" else LSTMLayer)(5, config).to(dtype)
    if kind == "layer_norm_lstm":  # its reference, which test_layer_norm_scan holds it to, without normalisation
        monkeypatch.setattr(layer_norm, "layer_norm_scan", layer_norm_reference)
        monkeypatch.setattr(F, "layer_norm", lambda x, *_: x)
    net, x = lstm_of(layer), clips(dtype=dtype)
    full = torch.full((3,), 6)
    state = torch.randn(3, 4, dtype=dtype), torch.randn(3, 4, dtype=dtype)
    hidden, after = layer(x, full, state)
    expected, (h, c) = net(x, tuple(part.unsqueeze(0) for part in state))
    for ours, theirs in ((hidden, expected), (after[0], h[0]), (after[1], c[0])):
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance)
    ours = torch.autograd.grad(hidden.sin().mean() + after[1].mean(), (x, layer.weight_ih, layer.weight_hh, layer.bias))
    wanted = (x, net.weight_ih_l0, net.weight_hh_l0, net.bias_ih_l0)
    for one, other in zip(ours, torch.autograd.grad(expected.sin().mean() + c.mean(), wanted), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_coupled_is_an_lstm_whose_input_gate_is_one_minus_the_forget_gate(dtype: torch.dtype, tolerance: float) -> None:
    """sigmoid(-x) = 1 - sigmoid(x): torch's LSTM with the forget gate's weights negated as its input gate's."""
    layer = make("coupled_lstm").to(dtype)
    assert isinstance(layer, LSTMLayer)
    net, x = nn.LSTM(5, 4, batch_first=True, dtype=dtype), clips(dtype=dtype)
    with torch.no_grad():
        for theirs, ours in (
            (net.weight_ih_l0, layer.weight_ih), (net.weight_hh_l0, layer.weight_hh), (net.bias_ih_l0, layer.bias)
        ):  # fmt: skip
            theirs.copy_(torch.cat([-ours[:4], ours]))
        net.bias_hh_l0.zero_()
    hidden, after = layer(x, torch.full((3,), 6))
    expected, (_, c) = net(x)
    assert torch.allclose(hidden, expected, rtol=0, atol=tolerance)
    assert torch.allclose(after[1], c[0], rtol=0, atol=tolerance)
    ours = torch.autograd.grad(hidden.sin().sum(), (x, layer.weight_hh))
    theirs = torch.autograd.grad(expected.sin().sum(), (x, net.weight_hh_l0))
    assert torch.allclose(ours[0], theirs[0], rtol=0, atol=tolerance)
    folded = theirs[1][4:].clone()
    folded[:4] -= theirs[1][:4]
    assert torch.allclose(ours[1], folded, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind not in ("slstm", "mlstm")])
def test_gradcheck(kind: str) -> None:
    """Of slstm and mlstm see test_newer_members.py: their states are scaled by a stabiliser without gradient."""
    layer = make(kind).double()
    x, state_size = clips(), layer(clips(), LENGTHS)[1]
    state = tuple(0.1 * torch.randn_like(part) for part in state_size)

    def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        hidden, after = layer(x, LENGTHS, state)
        mask = (torch.arange(6) < LENGTHS.unsqueeze(1)).unsqueeze(-1)
        return hidden * mask, *after

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "peephole_lstm", "coupled_lstm"])
def test_start_values(kind: str) -> None:
    size = 32
    layer = make(kind, hidden=size, forget_bias=1.5)
    named = {name.removeprefix("net.").removesuffix("_l0"): value for name, value in layer.named_parameters()}
    for gate in named["weight_hh"].split(size):
        assert torch.allclose(gate @ gate.T, torch.eye(size), atol=1e-5)
    bias = named["bias_ih" if "bias_ih" in named else "bias"]
    forget = 0 if kind == "coupled_lstm" else 1
    expected = torch.zeros(len(bias))
    expected[forget * size : (forget + 1) * size] = 1.5
    assert torch.equal(bias, expected)
    if "bias_hh" in named:
        assert (named["bias_hh"] == 0).all()  # torch adds two biases
    if "peephole" in named:
        assert (named["peephole"] == 0).all()


@pytest.mark.parametrize("kind", LAYERS)
def test_default_start_values_are_torchs(kind: str) -> None:
    layer = make(kind, hidden=16, initialisation="default")
    if isinstance(layer, FusedLayer):
        torch.manual_seed(0)
        names = {"rnn": nn.RNN, "irnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        theirs = names[kind](5, 16, batch_first=True)
        for one, other in zip(layer.net.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
    elif isinstance(layer, LSTMLayer):
        assert max(float(p.abs().max()) for p in layer.parameters()) <= 1 / 4


def test_the_rectified_rnn_starts_as_the_identity() -> None:
    layer = make("irnn")
    assert torch.equal(dict(layer.named_parameters())["net.weight_hh_l0"], torch.eye(4))
    x = torch.zeros(1, 5, 5)
    held = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert torch.equal(layer(x, torch.tensor([5]), (held,))[1][0], held)


def test_chrono_biases_spread_the_memory_over_the_gap() -> None:
    torch.manual_seed(0)
    bias = chrono_bias(10_000, 101)
    memory = 1 + bias.exp()  # steps after which a unit has forgotten all but 1 / e, about
    assert memory.min() >= 2 and memory.max() <= 101
    assert float(memory.mean()) == pytest.approx(51.5, rel=0.03)  # uniform
    assert (chrono_bias(5, 2) == 0).all()
    layer = make("lstm", hidden=64, initialisation="chrono", chrono_steps=50)
    bias = dict(layer.named_parameters())["net.bias_ih_l0"]
    assert torch.equal(bias[:64], -bias[64:128]) and (bias[64:128] >= 0).all() and float(bias.max()) <= math.log(49)


@pytest.mark.parametrize("kind", WITH_GATES)
def test_gates_are_named_and_shaped(kind: str) -> None:
    layer = make(kind).double()
    gates = layer.gates(clips(), LENGTHS)
    assert gates and set(gates) <= {"input", "forget", "cell", "output", "reset", "update"}
    for name, gate in gates.items():
        assert gate.shape[:2] == (3, 6)
        if name != "cell" and kind not in ("slstm", "mlstm"):
            assert (gate >= 0).all() and (gate <= 1).all()


@pytest.mark.parametrize("kind", ["lstm", "peephole_lstm", "coupled_lstm", "layer_norm_lstm"])
def test_cell_states_made_from_the_gates_are_the_layers(kind: str) -> None:
    layer = make(kind, **({"zoneout": 0.0} if kind == "layer_norm_lstm" else {})).double().eval()
    x, full = clips().detach(), torch.full((3,), 6)
    gates, c = layer.gates(x, full), torch.zeros(3, 4, dtype=torch.float64)
    for t in range(6):
        c = gates["forget"][:, t] * c + gates["input"][:, t] * gates["cell"][:, t]
    with torch.no_grad():
        assert torch.allclose(layer(x, full)[1][1], c, rtol=1e-10)


def test_gates_of_a_gru_make_its_state() -> None:
    layer = make("gru").double()
    x, full = clips().detach(), torch.full((3,), 6)
    gates = layer.gates(x, full)
    hidden, _ = layer(x, full)
    named = {name.removeprefix("net."): value for name, value in layer.named_parameters()}
    before = torch.cat([torch.zeros(3, 1, 4, dtype=torch.float64), hidden[:, :-1]], 1)
    w_in, b_in = named["weight_ih_l0"][8:], named["bias_ih_l0"][8:]
    w_re, b_re = named["weight_hh_l0"][8:], named["bias_hh_l0"][8:]
    new = torch.tanh(x @ w_in.T + b_in + gates["reset"] * (before @ w_re.T + b_re))
    assert torch.allclose(hidden, (1 - gates["update"]) * new + gates["update"] * before, rtol=1e-10)


@pytest.mark.parametrize("kind", ["lstm", "peephole_lstm", "coupled_lstm"])
def test_zoneout_keeps_units_in_training_and_mixes_in_evaluation(kind: str) -> None:
    layer = make(kind, zoneout=0.5)
    assert isinstance(layer, LSTMLayer)
    x = torch.randn(64, 1, 5)
    one, state = torch.ones(64, dtype=torch.int64), (torch.full((64, 4), 0.3), torch.full((64, 4), 0.7))
    with torch.no_grad():
        h, c = layer.train()(x, one, state)[1]
        assert 0.35 < float((h == 0.3).float().mean()) < 0.65 and 0.35 < float((c == 0.7).float().mean()) < 0.65
        kept = layer.eval()(x, one, state)[1]
        layer.zoneout = 0.0
        made = layer(x, one, state)[1]
    for mixed, before, new in zip(kept, state, made, strict=True):
        assert torch.allclose(mixed, 0.5 * before + 0.5 * new, atol=1e-6)


@pytest.mark.parametrize("kind", ["rnn", "irnn", "gru", "lstm", "peephole_lstm", "coupled_lstm", "layer_norm_lstm"])
def test_weight_dropout_drops_recurrent_weights_in_training_alone(kind: str) -> None:
    layer, plain = make(kind, weight_dropout=0.5).train(), make(kind).train()
    x, full = clips(dtype=torch.float32).detach(), torch.full((3,), 6)
    torch.manual_seed(5)
    hidden, _ = layer(x, full)
    assert torch.allclose(hidden[:, 0], plain(x, full)[0][:, 0])  # the first step has no former state
    assert not torch.allclose(hidden, plain(x, full)[0])
    hidden.sum().backward()
    (grad,) = [p.grad for name, p in layer.named_parameters() if "weight_hh" in name]
    assert grad is not None
    assert 0.2 < float((grad == 0).float().mean()) < 0.8  # what was dropped learns nothing
    assert torch.equal(layer.eval()(x, full)[0], plain.eval()(x, full)[0])


def test_variational_dropout_masks_the_recurrent_connection() -> None:
    layer = make("lstm", dropout=0.5, variational=True).train()
    assert isinstance(layer, LSTMLayer)
    x, full = clips(dtype=torch.float32).detach(), torch.full((3,), 6)
    torch.manual_seed(0)
    first, second = layer(x, full)[0], layer(x, full)[0]
    assert torch.equal(first[:, 0], second[:, 0]) and not torch.equal(first, second)
    assert torch.equal(layer.eval()(x, full)[0], layer(x, full)[0])


def test_the_projected_state_is_smaller() -> None:
    layer = make("lstm", hidden=6, proj_size=3)
    hidden, (h, c) = layer(clips(dtype=torch.float32), LENGTHS)
    assert layer.output_size == 3 and hidden.shape == (3, 6, 3) and h.shape == (3, 3) and c.shape == (3, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gru", "proj_size": 3}, "recurrent.proj_size is for lstm; recurrent.kind is gru"),
        ({"kind": "gru", "zoneout": 0.1}, "recurrent.zoneout is for lstm, peephole_lstm, coupled_lstm"),
        ({"kind": "min_gru", "weight_dropout": 0.1}, "recurrent.weight_dropout is for rnn"),
        ({"bidirectional": True, "truncate": 4}, "recurrent.truncate"),
        ({"hidden": 4, "proj_size": 4}, "must be below hidden"),
        ({"kind": "conv_lstm", "projection": 8}, "would destroy the feature map"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RecurrentConfig(**options)
