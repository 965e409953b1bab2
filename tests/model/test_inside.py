from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig
from pipeline.model.branch import Branch
from pipeline.model.classifier import build_classifier
from pipeline.model.inside import copies, half_life, look, named_layers, parameter_groups, summary, update_ratios

LENGTHS = torch.tensor([5, 1, 3])
LABELS = torch.tensor([0, 2, 1])


def branch(size: int = 3, hidden: int = 4, **changes: Any) -> Branch:
    torch.manual_seed(3)
    config = RecurrentConfig(hidden=hidden, dropout=0.5, **{"layers": 1, **changes})
    return Branch(size, 3, config).double().eval()


def objective(logits: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, LABELS)


def by_differences(model: Branch, features: Tensor, name: str) -> Tensor:
    """Norms (B, T) of the gradient of each clip's loss, from central differences of what the layer reads."""
    layer = named_layers(model.recurrent)[name]
    change = torch.zeros(())

    def shifted(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (arguments[0] + change, *arguments[1:])

    sizes: list[Tensor] = []
    with torch.no_grad(), layer.register_forward_pre_hook(lambda _, a: sizes.append(a[0])):
        model(features, LENGTHS)
    gradient = torch.zeros_like(sizes[0])
    with torch.no_grad(), layer.register_forward_pre_hook(shifted):
        for place in range(gradient.numel()):
            losses = []
            for step in (1e-5, -1e-5):
                change = torch.zeros_like(gradient)
                change.view(-1)[place] = step
                losses.append(objective(model(features, LENGTHS)))
            gradient.view(-1)[place] = (losses[0] - losses[1]) / 2e-5
    return gradient.norm(dim=2) * len(LENGTHS)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "rnn", "pooling": "last"},
        {"kind": "gru", "pooling": "linear"},
        {"kind": "lstm", "layers": 2, "residual": True, "pooling": "last"},
        {"kind": "lstm", "layers": 2, "bidirectional": True, "pooling": "last"},
        {"kind": "peephole_lstm", "layers": 2, "projection": 2, "pooling": "max"},
        {"kind": "lstm", "truncate": 2, "pooling": "mean"},
    ],
    ids=lambda changes: "-".join(f"{key}={value}" for key, value in changes.items()),
)
def test_the_gradient_curve_is_that_of_finite_differences(changes: dict[str, Any]) -> None:
    model = branch(**changes)
    features = torch.randn(3, 5, 3, dtype=torch.float64)
    seen = look(model, features, LENGTHS, objective)
    assert list(seen) == list(named_layers(model.recurrent))
    for name, layer in seen.items():
        norms = by_differences(model, features, name)
        rows = [norms[clip, :length].tolist() for clip, length in enumerate(LENGTHS.tolist())]
        from_the_end = [[row[-back] for row in rows if len(row) >= back] for back in range(5, 0, -1)]
        assert layer.gradient == pytest.approx([sum(x) / len(x) for x in from_the_end], rel=1e-5, abs=1e-9)
        assert layer.first == pytest.approx((rows[0][0] + rows[2][0]) / 2, rel=1e-5)
        assert layer.last == pytest.approx((rows[0][-1] + rows[2][-1]) / 2, rel=1e-5)


def test_the_loss_of_one_clip_does_not_depend_on_those_beside_it() -> None:
    model = branch(kind="lstm")
    features = torch.randn(1, 6, 3, dtype=torch.float64)
    one = look(model, features, torch.tensor([6]), lambda x: nn.functional.cross_entropy(x, LABELS[:1]))
    same = look(
        model, features.expand(4, -1, -1), torch.tensor([6] * 4),
        lambda x: nn.functional.cross_entropy(x, LABELS[:1].expand(4)),
    )  # fmt: skip
    assert one["layer0"].gradient == pytest.approx(same["layer0"].gradient, rel=1e-9)


def test_a_look_changes_nothing() -> None:
    model = branch(kind="lstm", layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    look(model, torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1)).double(), LENGTHS, objective)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_single_moments_have_no_first_and_last_and_pooling_alone_has_no_layers() -> None:
    features = torch.randn(3, 1, 3, dtype=torch.float64)
    seen = look(branch(kind="rnn"), features, torch.ones(3, dtype=torch.int64), objective)["layer0"]
    assert len(seen.gradient) == 1 and seen.first is None and seen.last is None and seen.gates == {}
    assert look(branch(kind="none", pooling="mean"), features, torch.ones(3, dtype=torch.int64), objective) == {}


@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0, 5.0])
def test_the_half_life_of_a_constant_forget_gate(bias: float) -> None:
    model = branch(kind="lstm")
    net = model.recurrent.layers[0].net
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.bias_ih_l0[4:8] = bias
    layer = look(model, torch.randn(3, 5, 3, dtype=torch.float64), LENGTHS, objective)["layer0"]
    kept = 1 / (1 + math.exp(-bias))
    assert layer.half_life == pytest.approx(math.log(0.5) / math.log(kept), rel=1e-6)
    assert kept**layer.half_life == pytest.approx(0.5)
    assert layer.gates["forget"].mean == pytest.approx(kept) and layer.gates["input"].mean == pytest.approx(0.5)


def test_the_half_life_is_that_of_the_mean_logarithm() -> None:
    assert half_life(torch.tensor([0.5, 0.5])) == pytest.approx(1.0)
    assert half_life(torch.tensor([0.9, 0.4])) == pytest.approx(2 * math.log(0.5) / math.log(0.36))
    assert half_life(torch.tensor([1.0, 1.0])) is None  # forgets nothing
    assert half_life(torch.tensor([0.5, 1.2])) is None  # exponential gates do not only forget
    assert half_life(torch.tensor([0.5, 0.0])) == 0.0


def test_saturation_counts_what_is_shut_and_what_is_wide_open() -> None:
    values = torch.tensor([[0.0, 0.05, 0.099, 0.1], [0.5, 0.9, 0.95, 1.0]])
    gate = summary(values)
    assert gate.closed == pytest.approx(3 / 8) and gate.open == pytest.approx(2 / 8)
    assert gate.mean == pytest.approx(float(values.mean()))
    assert gate.low == pytest.approx(float(torch.quantile(values, 0.1)))
    exponential = summary(torch.tensor([0.2, 3.0]))
    assert exponential.closed is exponential.open is None and exponential.mean == pytest.approx(1.6)


def test_gates_are_counted_at_valid_steps_alone() -> None:
    """The padding's gates are those of zeros: one half."""
    model = branch(kind="lstm")
    net = model.recurrent.layers[0].net
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.weight_ih_l0[:4] = 100.0
    layer = look(model, torch.ones(3, 5, 3, dtype=torch.float64), LENGTHS, objective)["layer0"]
    assert layer.gates["input"].open == 1.0 and layer.gates["forget"].open == 0.0


def test_updates_are_measured_against_the_weights() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
        model.bias.zero_()
    groups = {"weight": [model.weight], "bias": [model.bias]}
    before = copies(groups)
    with torch.no_grad():
        model.weight[0, 0] += 0.5
        model.bias += 1.0
    assert update_ratios(before, groups) == {"weight": pytest.approx(0.1)}  # zeros have no ratio


def test_the_groups_hold_each_trained_parameter_once() -> None:
    encoder = EncoderConfig(name="compact", weights="none", frozen=False)
    recurrent = RecurrentConfig(hidden=4, layers=2, bidirectional=True, projection=3, pooling="attention")
    one = build_classifier(Config(video=VideoConfig(size=32), encoder=encoder, recurrent=recurrent), 2)
    layers = [f"recurrent.layer{depth}{way}" for depth in (0, 1) for way in ("", "_backward")]
    assert set(parameter_groups(one)) == {"encoder", "normalisation", "projection", "pooling", "output", *layers}
    both = build_classifier(Config(video=VideoConfig(streams="rgb+flow", size=32), encoder=encoder), 2)
    groups = parameter_groups(both)
    assert {"rgb/encoder", "rgb/recurrent.layer0", "flow/recurrent.layer1", "flow/output"} <= groups.keys()
    found = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(found) == sorted(id(parameter) for parameter in both.parameters())
