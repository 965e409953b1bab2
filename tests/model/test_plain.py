"""The plain form of a model: its numbers, from whole clips and step by step, for every member of the family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipeline.config import Config, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig
from pipeline.model.cells import LAYERS
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.plain.cells import LOWEST
from pipeline.model.plain.network import PlainClip, PlainEncoders, PlainHead, cell_weights, size_of

KINDS = ("none", *LAYERS)
CLASSES = 3


def model_of(streams: str = "flow", task: str = "label", grid: int = 1, **recurrent: Any) -> Classifier:
    """A small model whose weights are all moved from their start, so that no part of it is idle."""
    torch.manual_seed(0)
    config = Config(
        task=task,  # type: ignore[arg-type]
        video=VideoConfig(streams=streams, size=32),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False, grid=grid),
        recurrent=RecurrentConfig(**{"hidden": 8, "layers": 2, **recurrent}),
        flow=FlowConfig(grid=3),
    )
    model = build_classifier(config, CLASSES, load=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name in model.streams:
            size = size_of(model, name)
            model.fit_standardisation(name, torch.randn(size) * 0.1, torch.rand(size) + 0.5)
    if model.numeric:
        model.fit_targets(3.0, 2.0)
    return model


def inputs_of(model: Classifier, clips: int, moments: int) -> dict[str, torch.Tensor]:
    return {
        name: torch.randint(0, 256, (clips, moments, 3, 32, 32), dtype=torch.uint8)
        if name in model.encoders
        else torch.randn(clips, moments, size_of(model, name))
        for name in model.streams
    }


@torch.inference_mode()
def check(model: Classifier, moments: int = 9) -> None:
    """Whole clips of several lengths, and a clip moment by moment."""
    lengths = torch.tensor([moments, 1, moments - 2])
    inputs = inputs_of(model, len(lengths), moments)
    clip = PlainClip(PlainHead(model), PlainEncoders(model, 32) if model.encoders else None).eval()
    found, wanted = clip(inputs, lengths), model(inputs, lengths)
    if model.per_moment:
        valid = torch.arange(moments) < lengths.unsqueeze(1)
        found, wanted = found[valid], wanted[valid]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)
    if not model.streamable:
        return
    features, state, own = model.encode(inputs, torch.full((3,), moments)), clip.head.start(3), None
    for moment in range(moments):
        now = {name: x[:, moment] for name, x in features.items()}
        answer, state = clip.head.step(now, state)
        wanted, own = model.step(now, own)
        torch.testing.assert_close(answer, wanted, rtol=1e-5, atol=2e-5)
        assert list(state) == list(clip.head.states)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_every_member_gives_the_models_numbers(kind: str, both: bool) -> None:
    check(model_of(kind=kind, bidirectional=both, residual=True))


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention", "linear"])
@pytest.mark.parametrize("both", [False, True])
def test_every_pooling_gives_the_models_numbers(pooling: str, both: bool) -> None:
    check(model_of(kind="gru", pooling=pooling, bidirectional=both))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "lstm", "proj_size": 5},
        {"kind": "lstm", "zoneout": 0.2},
        {"kind": "peephole_lstm", "zoneout": 0.2, "projection": 8, "residual": True},
        {"kind": "mlstm", "hidden": 6},
        {"task": "frame_label"},
        {"task": "regression", "pooling": "mean"},
        {"task": "frame_regression", "bidirectional": True},
        {"streams": "rgb+difference+flow", "pooling": "attention"},
        {"streams": "rgb", "grid": 2, "kind": "conv_lstm", "hidden": 3},
        {"streams": "rgb+flow", "task": "regression"},
    ],
    ids=str,
)
def test_options_tasks_and_streams_give_the_models_numbers(changes: dict[str, Any]) -> None:
    check(model_of(**changes))


def test_what_starts_a_state_is_finite_and_changes_no_number() -> None:
    """JSON has no -inf, and a state that starts from one would have to be written by hand."""
    for kind in ("slstm", "mlstm"):
        parts = PlainHead(model_of(kind=kind, pooling="max")).states
        assert LOWEST in {part.start for part in parts.values()}
        assert all(torch.tensor(part.start).isfinite() for part in parts.values())


@pytest.mark.parametrize(("size", "cells"), [(7, 1), (7, 3), (4, 2), (2, 3), (5, 5)])
def test_means_over_cells_are_those_of_adaptive_pooling(size: int, cells: int) -> None:
    maps = torch.randn(2, 3, size, size)
    found = cell_weights(size, cells) @ maps @ cell_weights(size, cells).t()
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(maps, cells), rtol=1e-5, atol=1e-6)
