"""The answer to a stream is the answer to a clip of the same moments, for all that can be fed step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Config, to_dict
from pipeline.data.clips import ClipInputs, load_clip
from pipeline.data.moments import Moments, streaming
from pipeline.model.cells import LAYERS
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.predict import Predictor
from pipeline.stages.watch.engine import TorchSteps
from pipeline.stages.watch.stepper import Reset, Stepper
from pipeline.video.reader import probe, read_frames

POOLINGS = ("last", "mean", "max", "attention", "linear")
KINDS = ("none", *LAYERS)
CASES = [(kind, POOLINGS[i % 5], "rgb") for i, kind in enumerate(KINDS)]
CASES += [("lstm", pooling, "rgb+flow") for pooling in POOLINGS]


def build(config: Config) -> Predictor:
    torch.manual_seed(3)
    model = build_classifier(config, 3).eval()
    with torch.no_grad():
        for weights in model.parameters():  # outputs that differ from moment to moment
            weights.add_(torch.randn_like(weights) * 0.2)
    calibrated = {"calibration": {"temperature": 1.7}}  # by which both ways must divide
    return Predictor(model, Card(to_dict(config), ["a", "b", "c"], extra=calibrated), torch.device("cpu"), "")


def random_clip(predictor: Predictor, steps: int, seed: int) -> ClipInputs:
    rng = np.random.default_rng(seed)
    inputs: dict[str, Any] = {"rgb": rng.integers(0, 256, (steps, 3, 32, 32), dtype=np.uint8)}
    if "flow" in predictor.model.streams:
        inputs["flow"] = rng.standard_normal((steps, 2 * predictor.plan.flow.grid**2)).astype(np.float32)
    return ClipInputs(inputs, np.arange(steps) / 10)


def at(clip: ClipInputs, place: int) -> dict[str, Any]:
    return {name: x[place] for name, x in clip.inputs.items()}


def so_far(predictor: Predictor, clip: ClipInputs, begin: int, place: int) -> np.ndarray:
    answer = predictor.answer(clip.reordered(np.arange(begin, place + 1)))
    return answer[-1] if predictor.model.per_moment else answer


@pytest.mark.parametrize(("kind", "pooling", "streams"), CASES, ids=["-".join(case) for case in CASES])
def test_every_member_that_streams_gives_the_answer_of_the_clip(
    kind: str, pooling: str, streams: str, make_config: Callable[..., Config]
) -> None:
    """Two sources share each call, although one began two moments later; the gates of the page change nothing."""
    config = make_config(recurrent__kind=kind, recurrent__pooling=pooling, video__streams=streams, encoder__grid=2)
    predictor = build(config)
    clips = [random_clip(predictor, 5, 1), random_clip(predictor, 5, 2)]
    stepper = Stepper(TorchSteps(predictor), 2, Reset("never"), gates=True)
    for place in range(7):
        moments = {
            number: at(clip, place - 2 * number) for number, clip in enumerate(clips) if 0 <= place - 2 * number < 5
        }
        for number, answer in stepper.step(moments).items():
            expected = so_far(predictor, clips[number], 0, place - 2 * number)
            np.testing.assert_allclose(answer.values, expected, atol=1e-5)
            assert all(np.isfinite(list(answer.gates.values())))
            assert bool(answer.gates) == (kind not in ("none", "rnn", "irnn"))


def test_answers_per_moment_and_numbers_stream_too(make_config: Callable[..., Config]) -> None:
    for task in ("frame_label", "regression", "frame_regression"):
        predictor = build(make_config(task=task))
        clip, stepper = random_clip(predictor, 4, 1), Stepper(TorchSteps(predictor), 1, Reset())
        for place in range(4):
            found = stepper.step({0: at(clip, place)})[0].values
            np.testing.assert_allclose(found, np.atleast_1d(so_far(predictor, clip, 0, place)), atol=1e-5)


def test_a_folded_encoder_in_bfloat16_stays_within_its_tolerance(make_config: Callable[..., Config]) -> None:
    predictor = build(make_config())
    clip = random_clip(predictor, 4, 1)
    exact = so_far(predictor, clip, 0, 3)
    for encoder in predictor.model.encoders.values():
        encoder.precision, encoder._folded.dtype = "bf16", torch.bfloat16  # type: ignore[union-attr]
        encoder._folded.drop()  # type: ignore[union-attr, operator]
    stepper = Stepper(TorchSteps(predictor), 1, Reset())
    found = [stepper.step({0: at(clip, place)})[0].values for place in range(4)][-1]
    np.testing.assert_allclose(found, so_far(predictor, clip, 0, 3), atol=1e-2)
    np.testing.assert_allclose(found, exact, atol=0.15)
    assert not np.array_equal(found, exact)


def test_a_window_answers_about_the_last_half_to_whole_window(make_config: Callable[..., Config]) -> None:
    predictor = build(make_config())
    clip, stepper = random_clip(predictor, 11, 1), Stepper(TorchSteps(predictor), 1, Reset("window", 4))
    ages = []
    for place in range(11):
        answer = stepper.step({0: at(clip, place)})[0]
        ages.append(answer.age)
        expected = so_far(predictor, clip, place + 1 - answer.age, place)
        np.testing.assert_allclose(answer.values, expected, atol=1e-5)
    assert ages == [1, 2, 3, 4, 3, 4, 3, 4, 3, 4, 3]


def test_a_restarted_source_answers_as_a_new_clip_and_the_others_go_on(make_config: Callable[..., Config]) -> None:
    predictor = build(make_config())
    clip, stepper = random_clip(predictor, 4, 1), Stepper(TorchSteps(predictor), 2, Reset())
    for place in range(4):
        if place == 2:
            stepper.restart(0)
        answers = stepper.step({0: at(clip, place), 1: at(clip, place)})
    np.testing.assert_allclose(answers[0].values, so_far(predictor, clip, 2, 3), atol=1e-5)
    np.testing.assert_allclose(answers[1].values, so_far(predictor, clip, 0, 3), atol=1e-5)


def test_one_call_of_the_encoder_serves_all_sources_and_both_states_of_a_window(
    make_config: Callable[..., Config],
) -> None:
    predictor = build(make_config())
    encoder, calls = predictor.model.encoders["rgb"], []
    encoder.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    clip, stepper = random_clip(predictor, 6, 1), Stepper(TorchSteps(predictor), 3, Reset("window", 4))
    for place in range(6):
        stepper.step({number: at(clip, place) for number in range(3)})
    assert calls == [3] * 6


def test_the_frames_of_a_file_one_by_one_give_the_answer_of_the_file(predictor: Predictor, tiny_clips: Path) -> None:
    plan = streaming(predictor.plan, 7.0)
    path = str(sorted(tiny_clips.glob("red/*_c01.*"))[1])
    times = probe(path).times
    moments, stepper, found = Moments(plan), Stepper(TorchSteps(predictor), 1, Reset()), None
    for frame, time in zip(read_frames(path, np.arange(len(times)), times).frames, times, strict=True):
        for moment in moments.push(frame, float(time)):
            found = stepper.step({0: moment.inputs})[0].values
    assert found is not None
    np.testing.assert_allclose(found, predictor.answer(load_clip(path, times, plan)), atol=1e-5)
