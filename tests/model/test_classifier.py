"""The whole model: streams, fusion, standardisation, streaming."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.config import Config, DifferenceConfig, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig
from pipeline.errors import ConfigError
from pipeline.model.classifier import Classifier, build_classifier, fuse

STREAMS = ("rgb", "difference", "flow", "rgb+flow", "rgb+difference+flow")
FORMS = [(streams, form) for streams in STREAMS for form in ("grid", "image") if (streams, form) != ("rgb", "image")]


def make(streams: str = "rgb", form: Any = "grid", frozen: bool = False, **recurrent: Any) -> Classifier:
    torch.manual_seed(0)
    settings = {"hidden": 8, "layers": 2, **recurrent}
    config = Config(
        video=VideoConfig(streams=streams, size=32),
        difference=DifferenceConfig(form=form, grid=3),
        flow=FlowConfig(form=form, grid=3),
        encoder=EncoderConfig(name="compact", weights="none", frozen=frozen),
        recurrent=RecurrentConfig(**settings),
    )
    return build_classifier(config, classes=4).eval()


def clips(model: Classifier, batch: int = 3, steps: int = 5) -> dict[str, torch.Tensor]:
    inputs = {}
    for name in model.streams:
        if name in model.encoders:
            inputs[name] = torch.randint(0, 256, (batch, steps, 3, 32, 32), dtype=torch.uint8)
        else:
            inputs[name] = torch.randn(batch, steps, 18)
    return inputs


@pytest.mark.parametrize(("streams", "form"), FORMS)
def test_streams(streams: str, form: str) -> None:
    model = make(streams, form)
    images = set(model.streams) & ({"rgb"} if form == "grid" else {"rgb", "difference", "flow"})
    assert set(model.encoders) == images
    inputs, lengths = clips(model), torch.tensor([5, 2, 3])
    features = model.encode(inputs, lengths)
    for name, value in features.items():
        assert value.shape == (3, 5, 128 if name in images else 18)
        assert value.dtype == torch.float32
        assert (value[1, 2:] == 0).all()
    logits = model(inputs, lengths)
    assert logits.shape == (3, 4)
    assert torch.equal(logits, model.head(features, lengths))
    assert torch.equal(model(features, lengths), logits)  # features that were stored pass through
    assert set(model.branch_logits(features, lengths)) == set(model.streams)


def test_fusion_is_the_renormalised_product() -> None:
    one, other = torch.randn(3, 4), torch.randn(3, 4)
    fused = fuse({"rgb": one, "flow": other}).softmax(1)
    product = (one.softmax(1) * other.softmax(1)).sqrt()
    assert torch.allclose(fused, product / product.sum(1, keepdim=True), atol=1e-6)
    assert torch.allclose(fuse({"rgb": one, "flow": other + 100}).softmax(1), fused, atol=1e-5)
    assert fuse({"rgb": one}) is one


def test_two_streams_are_fused_from_their_branches() -> None:
    model = make("rgb+flow")
    inputs, lengths = clips(model), torch.tensor([5, 5, 5])
    features = model.encode(inputs, lengths)
    parts = model.branch_logits(features, lengths)
    expected = (parts["rgb"].log_softmax(1) + parts["flow"].log_softmax(1)) / 2
    assert torch.allclose(model(inputs, lengths), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "rnn", "gru", "lstm"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_step_equals_forward_over_the_prefix(kind: str, pooling: str) -> None:
    model = make("rgb+difference+flow", kind=kind, pooling=pooling, projection=6)
    inputs = clips(model, batch=2, steps=6)
    state = None
    with torch.no_grad():
        for t in range(6):
            logits, state = model.step({name: value[:, t] for name, value in inputs.items()}, state)
            prefix = {name: value[:, : t + 1] for name, value in inputs.items()}
            assert torch.allclose(logits, model(prefix, torch.tensor([t + 1] * 2)), atol=1e-5)


def test_step_takes_features_and_leaves_the_state_it_got() -> None:
    model = make("rgb", pooling="attention")
    features = model.encode(clips(model, 2, 4), torch.tensor([4, 4]))["rgb"]
    with torch.no_grad():
        _, state = model.step({"rgb": features[:, 0]})
        first, _ = model.step({"rgb": features[:, 1]}, state)
        again, _ = model.step({"rgb": features[:, 1]}, state)
        direct = model.head({"rgb": features[:, :2]}, torch.tensor([2, 2]))
    assert torch.equal(first, again)
    assert torch.allclose(first, direct, atol=1e-5)


def test_bidirectional_refuses_to_step() -> None:
    model = make("flow", bidirectional=True)
    assert not model.streamable
    assert make("flow").streamable
    with pytest.raises(ConfigError, match="bidirectional"):
        model.step({"flow": torch.zeros(1, 18)})


def test_batch_norm_never_sees_padding() -> None:
    inputs, lengths = clips(make(), 3, 5), torch.tensor([5, 1, 2])
    black = {"rgb": inputs["rgb"].clone()}
    for row, length in enumerate(lengths):
        black["rgb"][row, length:] = 0
    one, other = make().train(), make().train()
    one.encode(inputs, lengths)
    other.encode(black, lengths)
    for (name, first), second in zip(one.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(first, second), name


def test_padding_of_features_reaches_neither_logits_nor_gradients() -> None:
    lengths = torch.tensor([4, 2])
    grads, logits = [], []
    for padding in (0.0, torch.nan):
        model = make("flow", projection=5)
        x = torch.arange(2 * 4 * 18, dtype=torch.float32).view(2, 4, 18) / 100
        x[1, 2:] = padding
        logits.append(model.head({"flow": x}, lengths))
        logits[-1].sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    assert torch.equal(*logits)
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_standardisation_is_part_of_the_model() -> None:
    model = make("flow")
    x, lengths = torch.randn(3, 5, 18) * 7 + 3, torch.tensor([5, 5, 5])
    plain = model.head({"flow": x}, lengths)
    mean, std = x.flatten(0, 1).mean(0), x.flatten(0, 1).std(0)
    expected = model.head({"flow": (x - mean) / std}, lengths)
    model.fit_standardisation("flow", mean, std)
    assert torch.allclose(model.head({"flow": x}, lengths), expected, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-3)
    assert "branches.flow.standardisation.mean" in model.state_dict()


def test_a_feature_that_hardly_moves_is_not_blown_up() -> None:
    model = make("flow")
    std = torch.ones(18)
    std[3] = 0.0
    model.fit_standardisation("flow", torch.zeros(18), std)
    smallest = model.state_dict()["branches.flow.standardisation.std"].min()
    assert smallest == pytest.approx(0.01 * 17 / 18, rel=1e-4)
    model.fit_standardisation("flow", torch.zeros(18), torch.zeros(18))
    assert model.head({"flow": torch.zeros(1, 1, 18)}, torch.tensor([1])).isfinite().all()
    with pytest.raises(ValueError, match="finite"):
        model.fit_standardisation("flow", torch.full((18,), torch.nan), std)
    with pytest.raises(ValueError, match=r"needs \(18,\)"):
        model.fit_standardisation("flow", torch.zeros(3), torch.ones(3))


def test_frozen() -> None:
    assert make("rgb", frozen=True).frozen
    assert not make("rgb", frozen=False).frozen
    assert make("flow", frozen=False).frozen  # no encoder: there is nothing to train before the features
    assert not make("rgb+flow", frozen=False).frozen


def test_wrong_inputs_say_what_is_wrong() -> None:
    model = make("rgb+flow")
    inputs, lengths = clips(model), torch.tensor([5, 5, 5])
    with pytest.raises(ConfigError, match=r"reads the streams rgb\+flow, the input has rgb"):
        model({"rgb": inputs["rgb"]}, lengths)
    with pytest.raises(ConfigError, match="stream flow has the shape"):
        model({**inputs, "flow": torch.zeros(3, 5, 17)}, lengths)
    with pytest.raises(ConfigError, match="stream flow has the shape"):
        model({**inputs, "flow": inputs["rgb"]}, lengths)  # this flow has no encoder
    with pytest.raises(ConfigError, match="stream rgb has the shape"):
        model.step({"rgb": inputs["rgb"], "flow": inputs["flow"][:, 0]})


def test_frames_too_small_for_the_encoder() -> None:
    config = Config(video=VideoConfig(size=16), encoder=EncoderConfig(name="alexnet", weights="none"))
    with pytest.raises(ConfigError, match=r"video\.size is 16"):
        build_classifier(config, classes=2)


def test_the_same_seed_builds_the_same_model() -> None:
    one, other = make("rgb+flow"), make("rgb+flow")
    for first, second in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(first, second)
