"""B7: a layer that is meant to train sits under `no_grad`, or nothing it does reaches the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import Config, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig
from pipeline.model.classifier import build_classifier

CASES: list[dict[str, Any]] = [
    {"kind": kind, "pooling": pooling, "bidirectional": both, "projection": projection}
    for kind in ("none", "rnn", "gru", "lstm")
    for pooling, both, projection in (
        ("last", False, 0),
        ("mean", True, 6),
        ("max", False, 6),
        ("attention", True, 0),
    )
]


def check(config: Config) -> None:
    torch.manual_seed(0)
    model = build_classifier(config, classes=3).train()
    lengths, labels = torch.tensor([4, 2, 3]), torch.tensor([0, 1, 2])
    inputs = {}
    for name in model.streams:
        frames = torch.randint(0, 256, (3, 4, 3, 32, 32), dtype=torch.uint8)
        inputs[name] = frames if name in model.encoders else torch.randn(3, 4, 18)
    F.cross_entropy(model(inputs, lengths), labels).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} got no gradient"
            assert parameter.grad.abs().sum() > 0, f"the gradient of {name} is zero"
        else:
            assert parameter.grad is None, name
    trained = {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert trained == ({"branches"} if model.frozen else {"encoders", "branches"})


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_every_layer_of_every_head_learns(case: dict[str, Any]) -> None:
    check(
        Config(
            video=VideoConfig(streams="flow"),
            flow=FlowConfig(grid=3),
            recurrent=RecurrentConfig(hidden=6, layers=2, dropout=0.0, **case),
        )
    )


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("streams", "form"), [("rgb", "grid"), ("rgb+flow", "grid"), ("rgb+flow", "image")])
def test_every_stream_learns_through_the_fused_loss(streams: str, form: Any, frozen: bool) -> None:
    check(
        Config(
            video=VideoConfig(streams=streams, size=32),
            flow=FlowConfig(form=form, grid=3),
            encoder=EncoderConfig(name="compact", weights="none", frozen=frozen),
            recurrent=RecurrentConfig(hidden=6, projection=5, dropout=0.0),
        )
    )


def test_a_torchvision_encoder_learns_to_its_first_layer() -> None:
    check(
        Config(
            video=VideoConfig(size=32),
            encoder=EncoderConfig(name="resnet18", weights="none", frozen=False),
            recurrent=RecurrentConfig(hidden=6, dropout=0.0),
        )
    )
