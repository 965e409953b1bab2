"""B1: reading `out[:, -1]` after unpacking gives zeros for every clip that is shorter than the longest."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from pipeline.config import RecurrentConfig
from pipeline.model.classifier import Classifier

HEADS = list(itertools.product(["none", "rnn", "gru", "lstm"], ["last", "mean", "max", "attention"], [False, True]))


@pytest.mark.parametrize(("kind", "pooling", "both"), HEADS)
def test_padded_batch_equals_each_clip_alone(kind: Any, pooling: Any, both: bool) -> None:
    torch.manual_seed(0)
    config = RecurrentConfig(kind=kind, pooling=pooling, bidirectional=both, hidden=8, projection=5)
    model = Classifier({"rgb": 6}, {}, 4, config).eval()
    lengths = torch.tensor([3, 7, 1, 5])
    x = torch.randn(4, 7, 6)
    with torch.no_grad():
        together = model.head({"rgb": x}, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model.head({"rgb": x[row : row + 1, :length]}, torch.tensor([length]))
            assert torch.allclose(together[row], alone[0], atol=1e-5)
    # Zeros instead of a hidden state would give all shorter clips the same logits.
    assert torch.unique(together, dim=0).shape[0] == 4


@pytest.mark.parametrize("both", [False, True])
def test_every_valid_step_is_read_and_none_of_the_padding(both: bool) -> None:
    torch.manual_seed(0)
    config = RecurrentConfig(kind="lstm", pooling="last", bidirectional=both, hidden=8)
    model = Classifier({"rgb": 6}, {}, 4, config).eval()
    x = torch.randn(2, 6, 6, requires_grad=True)
    model.head({"rgb": x}, torch.tensor([3, 6]))[0].sum().backward()
    assert x.grad is not None
    read = x.grad[0].abs().sum(-1) > 0
    assert read.tolist() == [True, True, True, False, False, False]
