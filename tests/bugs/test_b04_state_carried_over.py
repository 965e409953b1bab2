"""B4: recurrent state kept on the module goes from one batch of clips into the next, unrelated one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config import RecurrentConfig
from pipeline.model.classifier import Classifier

BATCHES = [(torch.randn(2, 4, 6), torch.tensor([4, 2])), (torch.randn(3, 5, 6), torch.tensor([1, 5, 3]))]


def model(kind: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier({"rgb": 6}, {}, 4, RecurrentConfig(kind=kind, hidden=8, dropout=0.0))


def attributes(module: nn.Module) -> dict[str, Any]:
    """Everything that any part of the model holds, other than its parts."""
    hidden = ("_modules", "_parameters", "_buffers")
    found = {}
    for name, part in module.named_modules():
        found.update({f"{name}.{key}": value for key, value in vars(part).items() if key not in hidden})
    return found


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_batches_does_not_matter(kind: Any, training: bool) -> None:
    net = model(kind).train(training)
    forwards = [net.head({"rgb": x}, lengths) for x, lengths in BATCHES]
    backwards = [net.head({"rgb": x}, lengths) for x, lengths in reversed(BATCHES)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_two_streams_of_one_model_do_not_mix(kind: Any) -> None:
    net = model(kind).eval()
    first, second = torch.randn(2, 1, 5, 6)
    with torch.no_grad():
        state_1 = state_2 = None
        for t in range(5):  # one step of each in turn
            logits_1, state_1 = net.step({"rgb": first[:, t]}, state_1)
            logits_2, state_2 = net.step({"rgb": second[:, t]}, state_2)
        length = torch.tensor([5])
        assert torch.allclose(logits_1, net.head({"rgb": first}, length), atol=1e-5)
        assert torch.allclose(logits_2, net.head({"rgb": second}, length), atol=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_no_module_remembers_a_call(kind: Any) -> None:
    net = model(kind).eval()
    names = set(attributes(net))
    state_dict = {key: value.clone() for key, value in net.state_dict().items()}
    net.head({"rgb": BATCHES[0][0]}, BATCHES[0][1])
    net.step({"rgb": BATCHES[0][0][:, 0]})
    assert set(attributes(net)) == names
    weights = ("._flat_weights",)
    kept = [key for key, value in attributes(net).items() if isinstance(value, torch.Tensor)]
    assert not [key for key in kept if not key.endswith(weights)]
    for key, value in net.state_dict().items():
        assert torch.equal(value, state_dict[key]), key
