"""Blocks of trunks, encoders of which a part learns, and stochastic depth."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.config import EncoderConfig
from pipeline.errors import ConfigError
from pipeline.model.blocks import blocks, depths
from pipeline.model.encoder import Encoder, build_encoder
from pipeline.model.lite0 import Lite0
from pipeline.model.trunk import build_trunk

NUMBER = {
    "compact": 4, "efficientnet_lite0": 18, "resnet18": 9, "mobilenet_v2": 19, "densenet121": 8, "regnet_y_400mf": 5,
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBER)
def test_blocks_are_in_the_order_of_the_frames_way_and_hold_every_weight(name: str) -> None:
    trunk, _ = build_trunk(name)
    found = blocks(trunk)
    assert len(found) == NUMBER[name]
    order: list[str] = []
    owners = {module: path for path, module in trunk.named_modules()}
    hooks = [
        module.register_forward_hook(lambda module, *_: order.append(owners[module]))
        for module in trunk.modules()
        if list(module.parameters(recurse=False))
    ]
    with torch.no_grad():
        trunk.eval()(torch.zeros(1, 3, 96, 96))
    for hook in hooks:
        hook.remove()

    def block_of(path: str) -> int:
        (place,) = [i for i, block in enumerate(found) if any(f"{path}.".startswith(f"{m}.") for m in block)]
        return place

    places = [block_of(path) for path in order]
    assert places == sorted(places) and set(places) == set(range(len(found)))
    assert depths(trunk).keys() == {parameter for parameter, _ in trunk.named_parameters()}
    assert set(depths(trunk).values()) == set(range(len(found)))


def config(name: str = "compact", **changes: float) -> EncoderConfig:
    return EncoderConfig(name=name, weights="none", frozen=False, **changes)  # type: ignore[arg-type]


def an_update(encoder: Encoder) -> None:
    frames = torch.randint(0, 255, (6, 3, 32, 32), dtype=torch.uint8)
    vectors = encoder(frames)
    if vectors.requires_grad:
        vectors.square().mean().backward()
        torch.optim.SGD([x for x in encoder.parameters() if x.grad is not None], lr=0.1).step()


def changed(encoder: Encoder, before: dict[str, torch.Tensor]) -> set[str]:
    """Which layers of the compact trunk have other weights or buffers."""
    state = encoder.state_dict()
    return {name.rsplit(".", 1)[0] for name in before if not torch.equal(before[name], state[name])}


def test_fixed_blocks_keep_weights_and_buffers_while_the_last_ones_learn() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(config(unfreeze_blocks=2)).train()
    assert [layer.training for layer in encoder.trunk.layers] == [False] * 2 + [True] + [False] * 2 + [True] * 7
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    an_update(encoder)
    assert changed(encoder, before) == {f"trunk.layers.{number}" for number in (6, 7, 9, 10)}
    encoder.eval().train()
    an_update(encoder)
    assert changed(encoder, before) == {f"trunk.layers.{number}" for number in (6, 7, 9, 10)}
    whole = build_encoder(config(unfreeze_blocks=4))
    assert all(x.requires_grad for x in whole.parameters()) and all(m.training for m in whole.trunk.modules())


def test_a_held_encoder_behaves_as_a_frozen_one_until_it_is_let_go() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(config())
    encoder.held = True
    encoder.train()
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    an_update(encoder)
    assert not encoder.training and not changed(encoder, before)
    encoder.held = False
    an_update(encoder.train())
    assert len(changed(encoder, before)) == 8


def test_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unfreeze_blocks is 5, but compact has 4"):
        build_encoder(config(unfreeze_blocks=5))


@pytest.mark.parametrize("option", ["unfreeze_after", "unfreeze_blocks", "stochastic_depth", "layer_decay"])
def test_a_frozen_encoder_has_no_options_of_learning(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"encoder\.{option} is for an encoder that learns"):
        EncoderConfig(**{option: 0.5 if option in ("stochastic_depth", "layer_decay") else 1})


def residual_drops(trunk: nn.Module) -> list[float]:
    return [module.p for module in trunk.modules() if type(module).__name__ == "StochasticDepth"]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0", "convnext_tiny"])
def test_stochastic_depth_grows_with_depth_and_is_off_by_default(name: str) -> None:
    assert not any(residual_drops(build_trunk(name)[0]))
    drops = residual_drops(build_trunk(name, 0.4)[0])
    assert drops == sorted(drops) and 0.3 < drops[-1] <= 0.4


def test_a_dropped_block_passes_its_input_on_in_training_alone() -> None:
    torch.manual_seed(0)
    trunk = Lite0(stochastic_depth=0.999)
    plain = Lite0()
    assert trunk.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(trunk.state_dict())
    x = torch.rand(4, 192, 4, 4)
    block, same = trunk.blocks[-2], plain.blocks[-2]
    block.drop.p = 1 - 1e-9
    assert torch.equal(block.eval()(x), same.eval()(x)) and not torch.equal(block(x), x)
    assert torch.equal(block.train()(x), x)


@pytest.mark.parametrize("name", ["resnet18", "compact"])
def test_stochastic_depth_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"efficientnet_\* and convnext_\*; encoder\.name is {name}"):
        build_encoder(config(name, stochastic_depth=0.1))
