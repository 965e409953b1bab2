"""Folded batch norm: the same function, and never of weights that have changed since."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.config import EncoderConfig
from pipeline.model.encoder import Encoder, build_encoder
from pipeline.model.folding import fold, fold_graph
from pipeline.model.trunk import build_trunk
from pipeline.model.weights import PACKAGES, weights_digest

FRAMES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RANDOM = ["compact", "efficientnet_lite0", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "efficientnet_b0"]
STAYING = {"densenet121": 62}
"""Norms before a convolution, which cannot fold into it."""


def used(name: str, **changes: object) -> Encoder:
    """An encoder with statistics as training leaves them: of its own maps, two channels in 16 nearly dead."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name=name, weights="none", frozen=False)).eval()
    norms = [layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias, 0.0, 0.3)
    encoder.train()
    with torch.no_grad():
        for layer in encoder.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is None and layer.out_channels >= 16:
                layer.weight[::16] *= 1e-3
                layer.weight[1::16] = 0.0
        encoder(torch.randint(0, 256, (4, 3, 96, 96), dtype=torch.uint8))
    return encoder.eval()


def plain(encoder: Encoder, frames: torch.Tensor = FRAMES) -> torch.Tensor:
    """What the layers say one by one, in torchvision's own layout."""
    trunk = copy.deepcopy(encoder.trunk).to(memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        maps = trunk((frames - encoder.mean) / encoder.std)
        return F.adaptive_avg_pool2d(maps, encoder.grid).flatten(1)


@torch.no_grad()
def folded(encoder: Encoder) -> torch.Tensor:
    """What the encoder says in inference, and that no batch norm was asked."""
    asked: list[nn.Module] = []
    norms = [layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(lambda module, *_: asked.append(module)) for layer in norms]
    try:
        return encoder(FRAMES)
    finally:
        for hook in hooks:
            hook.remove()
        assert asked == []


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_features(name: str) -> None:
    encoder = used(name)
    expected = plain(encoder)
    found = folded(encoder)
    assert expected.std() > 1e-2  # the features say something
    assert (found - expected).abs().max() < 1e-4
    assert not torch.equal(found, expected)  # another arithmetic did run
    exact = encoder.double()
    assert (folded(exact) - plain(exact)).abs().max() < 1e-10


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_the_same_features_with_the_packaged_weights(name: str) -> None:
    if importlib.util.find_spec(PACKAGES[name].module) is None:
        pytest.skip(PACKAGES[name].pip)
    encoder = build_encoder(EncoderConfig(name=name, weights="packaged", frozen=True))
    assert (folded(encoder) - plain(encoder)).abs().max() < 1e-4
    exact = encoder.double()
    assert (folded(exact) - plain(exact)).abs().max() < 1e-10


@pytest.mark.parametrize("name", [*RANDOM, "densenet121", "googlenet", "regnet_y_400mf", "shufflenet_v2_x0_5"])
def test_every_norm_after_a_convolution_is_gone(name: str) -> None:
    trunk = build_trunk(name)[0].eval()
    copied = fold(trunk, *fold_graph(trunk))
    norms = [sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) for net in (trunk, copied)]
    assert norms[0] > 0 and norms[1] == STAYING.get(name, 0)


class Twisted(nn.Module):
    """Norms that look as if they followed their convolution alone, and do not."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.read, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.last, self.counted = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.shared(self.first(self.shared(x))))
        y = self.read(x)
        return self.counted(self.last(self.norm(y) + y))


def test_a_convolution_that_is_used_twice_keeps_its_norm() -> None:
    trunk = Twisted().eval()
    graph, pairs = fold_graph(trunk)
    assert pairs == []
    assert torch.allclose(fold(trunk, graph, pairs)(FRAMES / 255), trunk(FRAMES / 255), atol=1e-4)


def test_what_is_saved_and_trained_knows_nothing_of_it() -> None:
    for frozen in (False, True):
        encoder = build_encoder(EncoderConfig("compact", "none", frozen)).eval()
        before, digest = list(encoder.state_dict()), weights_digest(encoder)
        parameters = [id(parameter) for parameter in encoder.parameters()]
        folded(encoder)
        assert list(encoder.state_dict()) == before and weights_digest(encoder) == digest
        assert [id(parameter) for parameter in encoder.parameters()] == parameters


def test_an_encoder_that_is_trained_asks_its_own_layers() -> None:
    encoder = used("compact")
    folded(encoder)
    asked: list[nn.Module] = []
    encoder.trunk.register_forward_hook(lambda module, *_: asked.append(module))
    encoder.train()(FRAMES).sum().backward()
    assert len(asked) == 1 and all(parameter.grad is not None for parameter in encoder.parameters())
    with torch.no_grad():
        encoder.eval()(FRAMES)  # the gradients still wait for their step
    encoder.zero_grad()
    encoder(FRAMES)  # someone may want gradients of these
    assert len(asked) == 3


Change = Callable[[Encoder], object]


def steps(encoder: Encoder, mode: bool, fused: bool) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=3e-3, fused=fused)
    encoder.train(mode)(FRAMES).square().sum().backward()
    with torch.no_grad():
        encoder(FRAMES)
    optimiser.step()
    optimiser.zero_grad()


def norms_move(encoder: Encoder) -> None:
    with torch.no_grad():
        encoder.train()(torch.zeros_like(FRAMES))


def load(encoder: Encoder, assign: bool) -> None:
    other = build_encoder(EncoderConfig("compact", "none"))
    encoder.load_state_dict(other.state_dict(), assign=assign)


def silently(encoder: Encoder) -> None:
    encoder.trunk.layers[0].weight.data.mul_(2)  # type: ignore[index, union-attr]
    encoder.eval()


def quietly(encoder: Encoder) -> None:
    with torch.inference_mode():
        next(encoder.parameters()).mul_(2)


CHANGES: dict[str, Change] = {
    "a step": lambda encoder: steps(encoder, True, False),
    "a fused step, which PyTorch does not count": lambda encoder: steps(encoder, True, True),
    "a fused step in evaluation mode": lambda encoder: steps(encoder, False, True),
    "moving statistics": norms_move,
    "loaded weights": lambda encoder: load(encoder, False),
    "assigned weights": lambda encoder: load(encoder, True),
    "a write through .data before eval()": silently,
    "a write in inference mode": quietly,
    "one statistic": lambda encoder: encoder.trunk.layers[1].running_var.add_(1),  # type: ignore[index, union-attr]
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_weights_are_seen(change: Change) -> None:
    encoder = used("compact")
    before = folded(encoder)
    change(encoder)
    encoder.train(encoder.training)
    after = folded(encoder.eval())
    assert (after - before).abs().max() > 1e-2
    assert torch.allclose(after, plain(encoder), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("change", [key for key in CHANGES if ".data" not in key])
def test_changed_weights_are_seen_without_any_switch_of_mode(change: str) -> None:
    encoder = used("compact")
    before = folded(encoder)
    encoder.train = lambda mode=True: nn.Module.train(encoder, mode)  # type: ignore[method-assign, assignment]
    CHANGES[change](encoder)
    after = folded(encoder.eval())
    assert (after - before).abs().max() > 1e-2
    assert torch.allclose(after, plain(encoder), atol=1e-3, rtol=1e-5)


def test_weights_made_in_inference_mode_keep_no_count_and_are_always_folded_anew() -> None:
    with torch.inference_mode():
        encoder = Encoder(build_trunk("compact")[0], 128, [127.5] * 3, [64.0] * 3, frozen=True)
        assert next(encoder.parameters()).is_inference()
        before = encoder(FRAMES)
        next(encoder.parameters()).mul_(2)
        assert (encoder(FRAMES) - before).abs().max() > 1e-2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_unchanged_weights_are_folded_once(monkeypatch: pytest.MonkeyPatch, mode: Callable[[], Any]) -> None:
    with mode():
        encoder = build_encoder(EncoderConfig("compact", "none")).eval()
    made = []
    monkeypatch.setattr("pipeline.model.folding.fold", lambda *args: made.append(0) or fold(*args))
    for _ in range(3):
        folded(encoder)
    assert len(made) == 1


def test_a_copied_encoder_has_its_own() -> None:
    encoder = used("compact")
    before = folded(encoder)
    twin = copy.deepcopy(encoder)
    assert torch.equal(folded(twin), before)
    with torch.no_grad():
        next(twin.parameters()).mul_(2)
    assert not torch.equal(folded(twin), before)
    assert torch.equal(folded(encoder), before)


def test_several_threads_may_ask_at_once() -> None:
    encoder = used("mobilenet_v3_small")
    expected = folded(copy.deepcopy(encoder))

    @torch.inference_mode()
    def ask(_: int) -> torch.Tensor:
        return encoder(FRAMES)

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(ask, range(8)))


def test_bf16_is_close_and_leaves_the_weights_alone() -> None:
    encoder = used("mobilenet_v2")
    rough = Encoder(encoder.trunk, 1280, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], precision="bf16").eval()
    exact, found = plain(encoder), folded(rough)
    assert found.dtype == torch.float32
    assert F.cosine_similarity(found, exact).min() > 0.95
    assert (found - exact).abs().max() > 1e-4
    assert all(parameter.dtype == torch.float32 for parameter in rough.parameters())
    trained = rough.train()(FRAMES)
    assert torch.equal(trained, encoder.train()(FRAMES))  # training knows no such precision
