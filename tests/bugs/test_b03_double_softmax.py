"""B3: a model that ends in a softmax, trained with cross entropy that takes another one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import RecurrentConfig
from pipeline.model.classifier import Classifier, fuse


def logits_of(streams: tuple[str, ...]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = Classifier(dict.fromkeys(streams, 6), {}, 4, RecurrentConfig(hidden=8)).eval()
    features = {name: torch.randn(3, 5, 6) for name in streams}
    lengths = torch.tensor([5, 2, 4])
    return {**model.branch_logits(features, lengths), "fused": model.head(features, lengths)}


@pytest.mark.parametrize("streams", [("rgb",), ("rgb", "difference", "flow")])
def test_heads_return_logits(streams: tuple[str, ...]) -> None:
    for name, logits in logits_of(streams).items():
        assert (logits < 0).any(), name  # a probability is not negative
        assert ((logits.sum(1) - 1).abs() > 1e-2).all(), name
        if name != "fused" or len(streams) == 1:
            # nor are they log-probabilities, whose exponentials would sum to 1
            assert ((logits.exp().sum(1) - 1).abs() > 1e-2).all(), name


def test_a_head_can_be_as_sure_as_it_likes() -> None:
    """Behind a softmax, cross entropy over 4 classes could not fall below log(1 + 3/e) = 0.744."""
    torch.manual_seed(0)
    model = Classifier({"rgb": 6}, {}, 4, RecurrentConfig(kind="none", pooling="mean", dropout=0.0))
    features, labels = {"rgb": torch.eye(4, 6).unsqueeze(1) * 5}, torch.arange(4)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(60):
        loss = F.cross_entropy(model.head(features, torch.ones(4, dtype=torch.int64)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05


def test_fusion_of_two_streams_keeps_the_sure_one_sure() -> None:
    """The mean of log-probabilities is a score like any other: cross entropy of it is not bounded below."""
    sure = torch.tensor([[60.0, 0.0, 0.0, 0.0]])
    assert F.cross_entropy(fuse({"rgb": sure, "flow": sure}), torch.tensor([0])) < 1e-6
