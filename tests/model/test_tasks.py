"""The model of each task: shapes, streaming, the target's unit, what a state dict holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Config, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.errors import CheckpointError, ConfigError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.losses import class_loss, number_loss

SHAPES = {"label": (3, 4), "frame_label": (3, 5, 4), "regression": (3, 1), "frame_regression": (3, 5, 1)}
LENGTHS = torch.tensor([5, 2, 3])


def config(task: Any, streams: str = "flow", **recurrent: Any) -> Config:
    return Config(
        task=task,
        video=VideoConfig(streams=streams, size=32),
        flow=FlowConfig(grid=3),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False),
        recurrent=RecurrentConfig(**{"hidden": 8, "layers": 2, **recurrent}),
    )


def make(task: Any, streams: str = "flow", **recurrent: Any) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(config(task, streams, **recurrent), 4).eval()


def clips(model: Classifier, steps: int = 5) -> dict[str, torch.Tensor]:
    made = {"rgb": torch.randint(0, 256, (3, steps, 3, 32, 32), dtype=torch.uint8), "flow": torch.randn(3, steps, 18)}
    return {name: made[name] for name in model.streams}


@pytest.mark.parametrize("streams", ["flow", "rgb+flow"])
@pytest.mark.parametrize("task", list(SHAPES))
def test_shapes(task: str, streams: str) -> None:
    model = make(task, streams)
    inputs = clips(model)
    found = model(inputs, LENGTHS)
    assert found.shape == SHAPES[task]
    assert torch.equal(found, model.head(model.encode(inputs, LENGTHS), LENGTHS))


@pytest.mark.parametrize("kind", ["none", "rnn", "gru", "lstm"])
@pytest.mark.parametrize("task", list(SHAPES))
def test_a_step_gives_what_the_whole_clip_gives_at_that_moment(task: str, kind: str) -> None:
    model = make(task, "rgb+flow", kind=kind, pooling="mean")
    if model.numeric:
        model.fit_targets(20.0, 7.0)
    inputs = clips(model, steps=6)
    state = None
    with torch.no_grad():
        whole = model(inputs, torch.tensor([6] * 3))
        for t in range(6):
            answer, state = model.step({name: x[:, t] for name, x in inputs.items()}, state)
            if model.per_moment:
                expected = whole[:, t]
            else:
                prefix = {name: x[:, : t + 1] for name, x in inputs.items()}
                expected = model(prefix, torch.tensor([t + 1] * 3))
            assert answer.shape == (3, SHAPES[task][-1])
            assert torch.allclose(answer, expected, atol=1e-4)


@pytest.mark.parametrize("task", ["frame_label", "frame_regression"])
def test_moments_of_a_padded_clip_are_those_of_the_clip_alone(task: str) -> None:
    for bidirectional in (False, True):
        model = make(task, bidirectional=bidirectional)
        inputs = clips(model)
        with torch.no_grad():
            together = model(inputs, LENGTHS)
            for row, length in enumerate(LENGTHS.tolist()):
                alone = model({"flow": inputs["flow"][row : row + 1, :length]}, torch.tensor([length]))
                assert torch.allclose(together[row, :length], alone[0], atol=1e-6)


def test_a_model_that_reads_both_ways_refuses_to_step_per_moment_too() -> None:
    with pytest.raises(ConfigError, match="bidirectional"):
        make("frame_label", bidirectional=True).step({"flow": torch.zeros(1, 18)})


@pytest.mark.parametrize("task", ["frame_label", "frame_regression"])
def test_padding_reaches_no_gradient_of_a_whole_model(task: str) -> None:
    gradients = []
    for padding in (0.0, torch.nan):
        model = make(task)
        x = torch.randn(3, 5, 18, generator=torch.Generator().manual_seed(1))
        for row, length in enumerate(LENGTHS.tolist()):
            x[row, length:] = padding
        outputs = model.branch_logits({"flow": x}, LENGTHS)["flow"]
        padded = torch.arange(5) >= LENGTHS.unsqueeze(1)
        if task == "frame_label":
            loss = class_loss(outputs, torch.ones(3, 5, dtype=torch.int64).masked_fill(padded, -1))
        else:
            loss = number_loss(outputs, torch.ones(3, 5).masked_fill(padded, torch.nan))
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None and one.isfinite().all() and torch.equal(one, other)


def test_numbers_are_in_the_targets_unit_and_streams_are_averaged() -> None:
    model = make("regression", "rgb+flow")
    inputs = clips(model)
    plain = model.branch_logits(model.encode(inputs, LENGTHS), LENGTHS)
    model.fit_targets(100.0, 5.0)
    expected = (plain["rgb"] + plain["flow"]) / 2 * 5 + 100
    assert torch.allclose(model(inputs, LENGTHS), expected, atol=1e-4)
    targets = torch.tensor([95.0, 100.0, torch.nan])
    assert model.standardised(targets)[:2].tolist() == [-1, 0] and model.standardised(targets)[2].isnan()


def test_targets_that_never_vary_leave_the_scale_alone() -> None:
    model = make("frame_regression")
    model.fit_targets(3.0, 0.0)
    assert float(model.target_std) == 1
    with pytest.raises(ValueError, match="finite"):
        model.fit_targets(float("nan"), 1.0)
    with pytest.raises(ValueError, match="no targets to standardise"):
        make("label").fit_targets(0.0, 1.0)


def test_state_dicts_differ_by_what_the_task_needs_alone() -> None:
    """Checkpoints of the task label that exist keep their keys."""
    names = {task: set(make(task, pooling="attention").state_dict()) for task in SHAPES}
    scale = {"target_mean", "target_std"}
    pooling = {name for name in names["label"] if ".pooling." in name}
    assert len(pooling) == 3
    assert not names["label"] & scale
    assert names["regression"] == names["label"] | scale
    assert names["frame_label"] == names["label"] - pooling
    assert names["frame_regression"] == (names["label"] - pooling) | scale


def test_a_checkpoint_of_numbers_has_no_classes_and_keeps_its_unit(tmp_path: Path) -> None:
    model = make("frame_regression")
    model.fit_targets(12.5, 3.0)
    checkpoint.save(tmp_path / "model", model.state_dict(), Card(to_dict(config("frame_regression")), []))
    again, card = checkpoint.load(tmp_path / "model")
    inputs = clips(model)
    assert card.classes == [] and torch.equal(again(inputs, LENGTHS), model(inputs, LENGTHS))
    checkpoint.save(tmp_path / "other", make("label").state_dict(), Card(to_dict(config("label")), []))
    with pytest.raises(CheckpointError, match="'classes' must be a list of names"):
        checkpoint.load(tmp_path / "other")
