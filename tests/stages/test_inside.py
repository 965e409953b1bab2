from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config import Config, FlowConfig, RecurrentConfig, TrainingConfig, VideoConfig
from pipeline.data.batches import Batch
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.stages.inside import EVERY, Inside, due, finite, metrics, seconds_per_step, summarised

CLASSES = ("left", "right", "up")


def batch(steps: int, clips: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(5)
    flow = torch.randn(clips, steps, 8, generator=generator)
    times = (torch.arange(steps, dtype=torch.float64) / 10).expand(clips, steps)
    return Batch({"flow": flow}, torch.full((clips,), steps), torch.arange(clips) % 3, times)


def model_of(**changes: Any) -> Classifier:
    torch.manual_seed(2)
    recurrent = RecurrentConfig(**{"hidden": 8, "layers": 1, "dropout": 0.0, "pooling": "last", **changes})
    return build_classifier(Config(video=VideoConfig(streams="flow"), flow=FlowConfig(grid=2), recurrent=recurrent), 3)


def watch(
    model: Classifier,
    probe: Batch | None,
    epochs: int = 9,
    readings: list[Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Inside:
    optimizer = optimizer or torch.optim.SGD(model.parameters())
    readings = [] if readings is None else readings
    settings = TrainingConfig(epochs=epochs, warmup=1.0)
    return Inside(model, optimizer, nn.CrossEntropyLoss(), probe, CLASSES, settings, readings)


def readings_of(model: Classifier, probe: Batch, epochs: int = 3) -> list[dict[str, Any]]:
    inside = watch(model, probe)
    for epoch in range(epochs):
        inside.begin(epoch, EVERY)
        inside.end(epoch + 1)
    return inside.readings


def planted(kind: str, factor: float) -> Classifier:
    """An RNN whose gradient is multiplied by about `factor` per step."""
    model = model_of(kind=kind)
    net = model.branches["flow"].recurrent.layers[0].net
    with torch.no_grad():
        net.weight_hh_l0.copy_(factor * torch.eye(8))
        net.weight_ih_l0.mul_(0.01)
        net.bias_ih_l0.fill_(0.001)  # keeps a rectified unit on its rising half
    return model


def test_a_planted_vanishing_gradient_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    readings = readings_of(planted("rnn", 0.5), batch(16), epochs=4)
    assert [list(reading["warnings"]) for reading in readings] == [[], ["vanishing_gradient"], [], []]
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "gradients vanish in layer0: the first of 16 steps" in said
    layer = readings[0]["layers"]["layer0"]
    assert layer["first"] / layer["last"] == pytest.approx(0.5**15, rel=0.2)


def test_a_planted_exploding_gradient_is_said() -> None:
    readings = readings_of(planted("irnn", 2.0), batch(16))
    assert [list(reading["warnings"]) for reading in readings] == [[], ["exploding_gradient"], []]
    layer = readings[0]["layers"]["layer0"]
    assert layer["first"] / layer["last"] == pytest.approx(2.0**15, rel=0.5)  # a unit may rest


@pytest.mark.parametrize("kind", ["lstm", "gru", "irnn"])
def test_a_healthy_net_raises_nothing(kind: str) -> None:
    assert all(reading["warnings"] == {} for reading in readings_of(model_of(kind=kind), batch(10)))


def test_planted_saturation_is_said() -> None:
    model = model_of(kind="lstm")
    with torch.no_grad():
        model.branches["flow"].recurrent.layers[0].net.bias_ih_l0[:8] = -9.0  # the input gate
    readings = readings_of(model, batch(6))
    assert "saturated_gates" in readings[1]["warnings"]
    assert "input gate of layer0 (100%)" in readings[1]["warnings"]["saturated_gates"]
    gates = readings[0]["layers"]["layer0"]["gates"]
    assert gates["input"]["closed"] == 1.0 and gates["output"]["closed"] < 0.5


def test_collapsed_predictions_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    inside = watch(model_of(), None)
    logits = torch.zeros(30, 3)
    logits[:29, 2] = 1.0
    for epoch in range(4):
        inside.begin(epoch, 1)
        inside.answers(logits, torch.arange(30) % 3)
        inside.end(epoch + 1)
    assert [list(reading["warnings"]) for reading in inside.readings] == [[], [], ["one_answer"], []]
    assert "97% of the validation clips are called 'up'" in capsys.readouterr().err
    assert inside.readings[0]["answers"] == {"most": "up", "share": 29 / 30, "true_share": 1 / 3}


def test_a_resumed_training_does_not_say_it_again() -> None:
    model, probe = planted("rnn", 0.5), batch(16)
    readings = readings_of(model, probe, epochs=2)
    assert readings[1]["warnings"]
    inside = watch(model, probe, readings=readings)
    inside.begin(2, EVERY)
    assert inside.end(3)["warnings"] == {} and len(readings) == 3


def test_answers_of_moments_without_a_label_do_not_count() -> None:
    inside = watch(model_of(), None)
    inside.begin(0, 1)
    logits = torch.zeros(2, 3, 3)
    logits[..., 1] = 1.0
    inside.answers(logits, torch.tensor([[0, 1, -1], [1, -1, -1]]))
    assert inside.end(1)["answers"] == {"most": "right", "share": 1.0, "true_share": pytest.approx(2 / 3)}


def test_numbers_are_compared_by_their_spread() -> None:
    pairs = [(torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])), (torch.tensor([3.0]), torch.tensor([30.0]))]
    assert summarised(pairs, ()) == {"spread": pytest.approx(0.1)}
    assert summarised([(torch.tensor([1.0]), torch.tensor([1.0]))], ()) == {}
    assert summarised([], CLASSES) == {}


def test_looks_come_after_the_first_epoch_and_each_time_enough_updates_were_made() -> None:
    assert all(due(epoch, EVERY) for epoch in range(5))
    assert all(due(epoch, 3 * EVERY + 1) for epoch in range(5))
    looked = [epoch for epoch in range(50) if due(epoch, EVERY // 10)]
    assert looked == [0, *range(9, 50, 10)]
    inside = watch(model_of(), batch(4), epochs=3)
    for epoch in range(3):
        inside.begin(epoch, 1)
        inside.end(epoch + 1)
    assert [bool(reading["layers"]) for reading in inside.readings] == [True, False, True]  # the last one, too


def test_the_first_update_of_an_epoch_is_measured() -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inside = watch(model, batch(4), optimizer=optimizer)
    output = model.branches["flow"].output
    inside.begin(0, 2)
    before = [parameter.detach().clone() for parameter in output.parameters()]
    probe = batch(4)
    nn.functional.cross_entropy(model(probe.inputs, probe.lengths), probe.targets).backward()
    optimizer.step()
    moved = torch.cat([(new.detach() - old).flatten() for new, old in zip(output.parameters(), before, strict=True)])
    weights = torch.cat([old.flatten() for old in before])
    optimizer.step()  # not this one
    updates = inside.end(1)["updates"]
    assert updates.keys() == {"recurrent.layer0", "output"}
    assert updates["output"] == pytest.approx(float(moved.norm() / weights.norm()), rel=1e-5)
    inside.begin(1, 2)
    optimizer.step()
    assert inside.end(2)["updates"] == {}  # not due


def test_seconds_are_those_between_the_moments_of_a_clip() -> None:
    one = batch(5)
    assert seconds_per_step(one) == pytest.approx(0.1)
    times = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    mixed = replace(one, lengths=torch.tensor([3, 2, 1]), times=times)
    assert seconds_per_step(mixed) == pytest.approx(2.0)
    assert seconds_per_step(replace(one, lengths=torch.ones(4, dtype=torch.int64))) is None


def test_metrics_have_their_documented_names() -> None:
    (reading,) = readings_of(model_of(kind="lstm"), batch(6), epochs=1)
    found = metrics(reading)
    gates = {
        f"gates/layer0/{gate}_{key}" for gate in ("input", "forget", "output") for key in ("mean", "closed", "open")
    }
    half = {f"gates/layer0/half_life_{unit}" for unit in ("frames", "seconds")}
    ends = {f"gradients/layer0/{end}" for end in ("first_step", "last_step", "first_over_last")}
    assert found.keys() == gates | half | ends
    assert found["gates/layer0/half_life_seconds"] == pytest.approx(found["gates/layer0/half_life_frames"] / 10)
    ratio = found["gradients/layer0/first_step"] / found["gradients/layer0/last_step"]
    assert found["gradients/layer0/first_over_last"] == pytest.approx(ratio)
    assert metrics({**reading, "layers": {}, "answers": {"most": "up", "share": 0.5, "true_share": 0.4}}) == {
        "val/answers_share": 0.5
    }


def test_what_is_not_finite_is_none() -> None:
    assert finite({"a": [1.0, float("inf")], "b": {"c": float("nan"), "d": "x"}, "e": 2}) == {
        "a": [1.0, None], "b": {"c": None, "d": "x"}, "e": 2,
    }  # fmt: skip
