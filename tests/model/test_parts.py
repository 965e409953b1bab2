"""A trunk of which only the last blocks learn: the fixed ones are folded, and nothing else is different."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.config import EncoderConfig
from pipeline.model.blocks import blocks
from pipeline.model.encoder import CHUNK, Encoder, build_encoder
from pipeline.model.parts import in_parts

NAMES = (
    "compact", "efficientnet_lite0", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf",
    "convnext_tiny", "densenet121", "googlenet", "shufflenet_v2_x1_0", "squeezenet1_1", "vgg11_bn", "efficientnet_b0",
)  # fmt: skip


def built(name: str, learning: int) -> Encoder:
    """With norms that have seen something; in float64, where rounding hides nothing."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name=name, weights="none", frozen=False, unfreeze_blocks=learning))
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return encoder.double().train()


def frames(count: int = 6, size: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def learned(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    """The vectors, the gradients and the statistics after a step."""
    torch.manual_seed(2)
    vectors = encoder(images)
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    gradients = {name: x.grad for name, x in encoder.named_parameters() if x.grad is not None}
    statistics = {name: x.clone() for name, x in encoder.named_buffers() if x.is_floating_point()}
    return {"vectors": vectors.detach(), **gradients, **statistics}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_vectors_gradients_and_statistics_in_parts_as_in_one(name: str) -> None:
    parted = built(name, 2)
    whole = copy.deepcopy(parted)
    whole._parts = None
    assert parted._parts is not None
    one, other = learned(parted, frames()), learned(whole, frames())
    assert one.keys() == other.keys() and len(one) > 2
    for key, x in one.items():
        torch.testing.assert_close(x, other[key], rtol=1e-6, atol=1e-9 * (1 + float(other[key].abs().max())))


@pytest.mark.parametrize("name", ["compact", "efficientnet_lite0"])
def test_several_updates_end_in_the_same_weights(name: str) -> None:
    parted = built(name, 2)
    whole = copy.deepcopy(parted)
    whole._parts = None
    for encoder in (parted, whole):
        optimiser = torch.optim.AdamW([x for x in encoder.parameters() if x.requires_grad], lr=1e-3, eps=1e-3)
        for _ in range(4):
            optimiser.zero_grad()
            encoder(frames()).square().mean().backward()
            optimiser.step()
    for (key, one), other in zip(parted.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")


def test_more_frames_than_a_chunk() -> None:
    parted = built("compact", 1)
    whole = copy.deepcopy(parted)
    whole._parts = None
    one, other = (learned(encoder, frames(CHUNK + 3, 32)) for encoder in (parted, whole))
    torch.testing.assert_close(one["vectors"], other["vectors"], rtol=1e-7, atol=1e-9)


def test_new_weights_are_followed_also_those_of_the_fixed_blocks() -> None:
    encoder, other = built("compact", 1), built("compact", 1)
    before = encoder(frames()).detach()
    for parameter in other.parameters():
        parameter.data.mul_(1.5)
    encoder.load_state_dict(other.state_dict())
    after = encoder(frames()).detach()
    assert not torch.allclose(before, after)
    encoder._parts = None
    torch.testing.assert_close(encoder(frames()).detach(), after, rtol=1e-7, atol=1e-9)


def test_a_copy_learns_by_itself() -> None:
    encoder = built("compact", 1)
    twin = copy.deepcopy(encoder)
    before = encoder(frames()).detach()
    optimiser = torch.optim.SGD([x for x in twin.parameters() if x.requires_grad], lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        twin(frames()).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(encoder(frames()).detach(), before)
    assert not torch.allclose(twin(frames()).detach(), before, atol=1e-3)


def test_no_weight_has_a_second_name() -> None:
    encoder = built("compact", 1)
    assert len(list(encoder.parameters())) == len(list(encoder.trunk.parameters()))
    assert set(encoder.state_dict()) == {f"trunk.{name}" for name in encoder.trunk.state_dict()}


class Crossed(nn.Module):
    """Its second layer reads two values of the first one's block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z: Tensor = self.second(y) + y.relu() + x
        return z


def test_a_trunk_that_cannot_be_cut_stays_whole() -> None:
    assert in_parts(Crossed(), ["first"]) is None
    assert in_parts(Crossed(), []) is None


def test_all_blocks_but_one_can_be_fixed() -> None:
    for name in ("compact", "resnet18", "densenet121", "googlenet"):
        trunk = build_encoder(EncoderConfig(name=name, weights="none", frozen=False)).trunk
        found = blocks(trunk)
        assert in_parts(trunk, [path for block in found[:-1] for path in block]) is not None, name
