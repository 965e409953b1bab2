from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import Config, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig
from pipeline.model.anatomy import Step, branch_steps, encoder_steps
from pipeline.model.cells import LAYERS
from pipeline.model.classifier import Classifier, build_classifier

MOMENTS = 5


def model_of(task: Any = "label", encoder: str = "compact", **recurrent: Any) -> Classifier:
    config = Config(
        task=task,
        video=VideoConfig(size=64, frames=MOMENTS),
        encoder=EncoderConfig(name=encoder, weights="none", frozen=False, grid=2),
        recurrent=RecurrentConfig(**{"hidden": 8, "layers": 1, **recurrent}),
    )
    return build_classifier(config, 3, load=False)


def flow_steps(**recurrent: Any) -> dict[str, Step]:
    """Steps of a branch that reads 2 * 2 * 2 = 8 numbers per moment."""
    config = Config(
        video=VideoConfig(streams="flow"), flow=FlowConfig(grid=2),
        recurrent=RecurrentConfig(**{"hidden": 6, "layers": 2, **recurrent}),
    )  # fmt: skip
    return {step.name: step for step in branch_steps(build_classifier(config, 3).branches["flow"], MOMENTS)}


def test_convolutions_are_counted_as_by_hand() -> None:
    steps = {step.name: step for step in encoder_steps(model_of().encoders["rgb"], MOMENTS, 64)}
    first, last = steps["encoder layers.0"], steps["encoder layers.9"]
    # frames * map * kernel * channels in * channels out; a batch norm has two parameters and three buffers
    assert first.multiply_adds == MOMENTS * 32 * 32 * 3 * 3 * 3 * 32
    assert first.shape == (MOMENTS, 32, 32, 32) and first.parameters == 3 * 3 * 3 * 32 + 2 * 32
    assert first.weights == 4 * (first.parameters + 2 * 32) + 8
    assert first.activations == 4 * 2 * MOMENTS * 32 * 32 * 32  # convolution and norm; the ReLU writes in place
    assert last.multiply_adds == MOMENTS * 4 * 4 * 3 * 3 * 96 * 128 and last.shape == (MOMENTS, 128, 4, 4)
    assert steps["normalise"].shape == (MOMENTS, 3, 64, 64)
    assert steps["mean over 2 x 2 cells"].shape == (MOMENTS, 512)


@pytest.mark.parametrize("name", ["compact", "efficientnet_lite0", "mobilenet_v3_small", "resnet18", "googlenet"])
def test_an_encoder_s_parts_add_up_and_have_the_shapes_that_it_gives(name: str) -> None:
    encoder = model_of(encoder=name).encoders["rgb"].eval()
    steps = encoder_steps(encoder, 2, 96)
    frames = torch.zeros(2, 3, 96, 96)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = encoder.trunk(frames)
    assert steps[-2].shape == tuple(maps.shape) and steps[-1].shape == (2, encoder.dim)
    assert sum(step.multiply_adds or 0 for step in steps) == counter.get_total_flops() // 2
    assert sum(step.parameters for step in steps) == sum(p.numel() for p in encoder.parameters())
    assert sum(step.weights for step in steps) == sum(x.nbytes for x in encoder.state_dict().values())
    assert len(steps) > 5


@pytest.mark.parametrize(("kind", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4), ("coupled_lstm", 3)])
def test_recurrences_are_counted_as_by_hand(kind: str, gates: int) -> None:
    steps = flow_steps(kind=kind, bidirectional=True)
    for way in ("", "_backward"):
        assert steps[f"{kind} layer0{way}"].multiply_adds == MOMENTS * gates * 6 * (8 + 6)
        assert steps[f"{kind} layer1{way}"].multiply_adds == MOMENTS * gates * 6 * (12 + 6)
        assert steps[f"{kind} layer1{way}"].shape == (MOMENTS, 6)
    assert steps["last pooling"].shape == (12,)


def test_projections_and_peepholes_are_counted_as_by_hand() -> None:
    lstm = flow_steps(kind="lstm", proj_size=4)["lstm layer1"]
    assert lstm.multiply_adds == MOMENTS * (4 * 6 * (4 + 4) + 6 * 4) and lstm.shape == (MOMENTS, 4)
    peephole = flow_steps(kind="peephole_lstm")["peephole_lstm layer0"]
    assert peephole.multiply_adds == MOMENTS * (4 * 6 * (8 + 6) + 3 * 6)


def test_linear_layers_are_counted_as_by_hand() -> None:
    steps = flow_steps(projection=5, pooling="attention")
    assert steps["projection"].multiply_adds == MOMENTS * 8 * 5 and steps["projection"].parameters == 8 * 5 + 5
    assert steps["attention pooling"].multiply_adds == MOMENTS * (6 * 6 + 6)
    assert steps["output"].multiply_adds == 6 * 3 and steps["output"].shape == (3,)
    assert steps["standardise"].weights == 2 * 8 * 4 and steps["standardise"].multiply_adds == 0


@pytest.mark.parametrize("task", ["label", "frame_label", "regression", "frame_regression"])
def test_each_task_ends_with_what_it_answers(task: str) -> None:
    model = model_of(task).eval()
    steps = branch_steps(model.branches["rgb"], MOMENTS)
    features = torch.zeros(1, MOMENTS, 512)
    logits = model.branch_logits({"rgb": features}, torch.tensor([MOMENTS]))["rgb"]
    assert (1, *steps[-1].shape) == tuple(logits.shape)


@pytest.mark.parametrize("kind", ["none", *LAYERS])
def test_every_parameter_belongs_to_one_step(kind: str) -> None:
    model = model_of(kind=kind, layers=2)
    steps = encoder_steps(model.encoders["rgb"], MOMENTS, 64) + branch_steps(model.branches["rgb"], MOMENTS)
    assert sum(step.parameters for step in steps) == sum(p.numel() for p in model.parameters())
    assert sum(step.weights for step in steps) == sum(x.nbytes for x in model.state_dict().values())
    assert all(step.multiply_adds for step in steps if "layer0" in step.name or "layer1" in step.name)


def test_a_frozen_encoder_is_not_trained() -> None:
    config = Config(video=VideoConfig(size=64), encoder=EncoderConfig("compact", "none", True))
    steps = encoder_steps(build_classifier(config, 2, load=False).encoders["rgb"], MOMENTS, 64)
    assert sum(step.parameters for step in steps) > 0 and all(step.trained == 0 for step in steps)
