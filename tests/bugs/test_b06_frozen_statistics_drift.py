"""B6: a frozen encoder left in training mode: no gradient, yet its batch-norm statistics move every batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig
from pipeline.model.classifier import Classifier, build_classifier


def model(name: str, frozen: bool) -> Classifier:
    torch.manual_seed(0)
    config = Config(
        video=VideoConfig(size=32),
        encoder=EncoderConfig(name=name, weights="none", frozen=frozen),
        recurrent=RecurrentConfig(hidden=8),
    )
    return build_classifier(config, classes=3)


def train(net: Classifier) -> None:
    """A few steps as a training loop makes them, with every switch back into training mode."""
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        net.eval()
        net.train()
        frames = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
        logits = net({"rgb": frames}, torch.tensor([3, 2]))
        optimiser.zero_grad()
        F.cross_entropy(logits, torch.tensor([0, 2])).backward()
        optimiser.step()


@pytest.mark.parametrize("name", ["compact", "mobilenet_v3_small"])
def test_a_frozen_encoder_does_not_move_a_bit(name: str) -> None:
    net = model(name, frozen=True)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    train(net)
    moved = [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]
    assert moved
    assert all(key.startswith("branches.") for key in moved)
    assert net.training
    assert not any(part.training for part in net.encoders["rgb"].modules())


def test_a_trained_encoder_does_move() -> None:
    net = model("compact", frozen=False)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    train(net)
    still = [key for key, value in net.state_dict().items() if torch.equal(value, before[key])]
    assert all("standardisation" in key for key in still)


def test_a_frozen_encoder_gives_the_same_features_in_every_mode_and_batch() -> None:
    net = model("compact", frozen=True)
    frames = torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8)
    lengths = torch.tensor([2, 2, 2])
    together = net.train().encode({"rgb": frames}, lengths)["rgb"]
    alone = net.eval().encode({"rgb": frames[:1]}, lengths[:1])["rgb"]
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert not together.requires_grad
