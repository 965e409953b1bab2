"""What only a GPU can show; skipped without one."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig
from pipeline.model.cells import LAYERS
from pipeline.model.classifier import build_classifier
from pipeline.model.heat import heat_maps
from pipeline.model.importance import class_score, feature_maps, mean_gradients, pooled
from pipeline.model.trace import traces

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_gpu_gives_the_numbers_of_the_cpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    config = Config(
        video=VideoConfig(size=32),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False),
        recurrent=RecurrentConfig(kind=kind, hidden=16, layers=2),  # type: ignore[arg-type]
    )
    model = build_classifier(config, 5).eval()
    frames = torch.randint(0, 256, (3, 6, 3, 32, 32), dtype=torch.uint8)
    lengths = torch.tensor([6, 1, 4])
    with torch.no_grad():
        expected = model({"rgb": frames}, lengths)
        found = model.cuda()({"rgb": frames.cuda()}, lengths).cpu()
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_a_model_of_cudnn_is_explained_in_evaluation_mode(kind: str) -> None:
    """cuDNN's backward pass raises outside training; what explains must give the numbers of the CPU."""
    torch.manual_seed(0)
    config = Config(
        video=VideoConfig(size=32),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False),
        recurrent=RecurrentConfig(kind=kind, hidden=16, layers=2),  # type: ignore[arg-type]
    )
    model = build_classifier(config, 3).eval()
    frames = torch.randint(0, 256, (1, 6, 3, 32, 32), dtype=torch.uint8)
    found = {}
    for device in ("cpu", "cuda"):
        inputs = {"rgb": frames.to(device)}
        features = pooled(model.to(device), feature_maps(model, inputs))
        gradients = mean_gradients(model, features, class_score(1))
        trace = traces(model.branches["rgb"], features["rgb"], lambda output: output[0, 1])["layer0"]  # type: ignore[arg-type]
        heat = heat_maps(model, inputs, gradients)["rgb"]
        found[device] = [gradients["rgb"], heat, trace.values["hidden"], trace.influence]
    for expected, got in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(got, expected, atol=2e-3, rtol=2e-2)
