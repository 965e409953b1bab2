"""ConvLSTM against the equations of Shi et al. (2015), and against `torch.nn.LSTM` on a grid of one cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import Config, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig
from pipeline.model.cells.conv import ConvLSTMLayer
from pipeline.model.classifier import build_classifier


def equations(layer: ConvLSTMLayer, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """Equations 3 of the paper, gate by gate; x (B, T, C, g, g)."""
    w, r, b, p = (y.chunk(4) for y in (layer.weight_ih, layer.weight_hh, layer.bias, layer.peephole))
    padding = layer.weight_ih.shape[-1] // 2

    def gate(index: int, step: Tensor) -> Tensor:
        return (
            F.conv2d(step, w[index], padding=padding) + F.conv2d(h, r[index], padding=padding) + b[index].view(-1, 1, 1)
        )

    states = []
    for t in range(x.shape[1]):
        i, f = torch.sigmoid(gate(0, x[:, t]) + p[0][0] * c), torch.sigmoid(gate(1, x[:, t]) + p[1][0] * c)
        c = f * c + i * torch.tanh(gate(2, x[:, t]))
        h = torch.sigmoid(gate(3, x[:, t]) + p[2][0] * c) * torch.tanh(c)
        states.append(h)
    return torch.stack(states, 1)


def make(grid: int, channels: int = 2, hidden: int = 3, **options: object) -> ConvLSTMLayer:
    config = RecurrentConfig(kind="conv_lstm", hidden=hidden, **options)  # type: ignore[arg-type]
    return ConvLSTMLayer(channels * grid * grid, config, grid)


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_outputs_and_gradients_are_those_of_the_equations(grid: int) -> None:
    torch.manual_seed(0)
    layer = make(grid).double()
    nn.init.normal_(layer.peephole)
    maps = torch.randn(2, 6, 2, grid, grid, dtype=torch.float64, requires_grad=True)
    h, c = (torch.randn(2, 3, grid, grid, dtype=torch.float64, requires_grad=True) for _ in range(2))
    hidden, after = layer(maps.flatten(2), torch.tensor([6, 6]), (h, c))
    expected = equations(layer, maps, h, c)
    torch.testing.assert_close(hidden, expected.flatten(2), atol=1e-10, rtol=1e-10)
    assert torch.equal(after[0].flatten(1), hidden[:, -1])
    inputs = (maps, h, c, *layer.parameters())
    ours = torch.autograd.grad(hidden.sin().sum(), inputs)
    theirs = torch.autograd.grad(expected.sin().sum(), inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_one_cell_without_peepholes_is_the_lstm_of_pytorch() -> None:
    torch.manual_seed(0)
    layer, lstm = make(1, channels=4).double(), nn.LSTM(4, 3, batch_first=True).double()
    with torch.no_grad():
        layer.weight_ih.copy_(lstm.weight_ih_l0.view_as(layer.weight_ih))
        layer.weight_hh.copy_(lstm.weight_hh_l0.view_as(layer.weight_hh))
        layer.bias.copy_(lstm.bias_ih_l0 + lstm.bias_hh_l0)
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    ours, theirs = layer(x, torch.tensor([7, 7]), None)[0], lstm(x)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    ours.sin().sum().backward()
    theirs.sin().sum().backward()
    for one, other in (("weight_ih", "weight_ih_l0"), ("weight_hh", "weight_hh_l0"), ("bias", "bias_ih_l0")):
        mine, reference = getattr(layer, one).grad, getattr(lstm, other).grad
        torch.testing.assert_close(mine.view_as(reference), reference, atol=1e-10, rtol=1e-10)


def test_a_cell_of_the_map_reaches_its_neighbours_one_step_at_a_time() -> None:
    torch.manual_seed(0)
    layer = make(5)
    silent, touched = torch.zeros(1, 3, 2, 5, 5), torch.zeros(1, 3, 2, 5, 5)
    touched[0, 0, :, 0, 0] = 1.0
    with torch.no_grad():
        before, after = (layer(x.flatten(2), torch.tensor([3]), None)[0] for x in (silent, touched))
    changed = (before != after).view(3, 3, 5, 5).any(1)  # by step and cell; input and state each reach one cell far
    for step in range(3):
        reach = min(step + 2, 5)
        assert changed[step, :reach, :reach].all()
        assert not changed[step, reach:].any() and not changed[step, :, reach:].any()


def test_start_weights() -> None:
    torch.manual_seed(0)
    layer = make(4, hidden=6, forget_bias=1.5)
    assert layer.bias.tolist() == [0.0] * 6 + [1.5] * 6 + [0.0] * 12
    assert not layer.peephole.any()
    for gate in layer.weight_hh.detach().split(6):
        rows = gate.flatten(1)
        assert torch.allclose(rows @ rows.t(), torch.eye(6), atol=1e-5)
    assert (layer.output_size, make(1).weight_ih.shape[-1], layer.weight_ih.shape[-1]) == (96, 1, 3)


def test_a_vector_that_is_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match="vector of 10 as maps of 3 x 3"):
        ConvLSTMLayer(10, RecurrentConfig(kind="conv_lstm"), grid=3)


@pytest.mark.parametrize("both", [False, True])
def test_it_reads_the_maps_of_the_encoder_and_of_the_flow_grid(both: bool) -> None:
    torch.manual_seed(0)
    config = Config(
        video=VideoConfig(size=32, streams="rgb+flow"),
        flow=FlowConfig(grid=3),
        encoder=EncoderConfig(name="compact", weights="none", grid=2),
        recurrent=RecurrentConfig(kind="conv_lstm", hidden=3, layers=2, bidirectional=both, residual=True),
    )
    model = build_classifier(config, 4).eval()
    layers = {name: model.branches[name].recurrent.layers for name in ("rgb", "flow")}
    assert [layer.grid for layer in (*layers["rgb"], *layers["flow"])] == [2, 2, 3, 3]
    assert layers["flow"][0].weight_ih.shape[1] == 2
    assert layers["rgb"][1].weight_ih.shape[1] == (6 if both else 3)
    frames = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    inputs = {"rgb": frames, "flow": torch.randn(2, 4, 18)}
    with torch.no_grad():
        whole = model(inputs, torch.tensor([4, 4]))
        assert whole.shape == (2, 4)
        if not both:
            state = None
            for t in range(4):
                logits, state = model.step({name: x[:, t] for name, x in inputs.items()}, state)
            torch.testing.assert_close(logits, whole, atol=1e-5, rtol=1e-5)
