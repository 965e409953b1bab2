"""Options that make a training step faster: the same numbers, and an error in words where they cannot be had."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from pipeline.data.batches import Batch, collate
from pipeline.errors import ConfigError
from pipeline.model.classifier import build_classifier
from pipeline.stages.checks import check_compiler, check_encoder
from pipeline.stages.step import TrainStep

CPU = torch.device("cpu")


def batch(clips: int, moments: int) -> Batch:
    random = torch.Generator().manual_seed(clips)
    frames = torch.randint(0, 256, (clips, moments, 3, 32, 32), generator=random, dtype=torch.uint8)
    return collate([{"rgb": clip.numpy()} for clip in frames], [number % 3 for number in range(clips)])


def step_for(config: Any) -> TrainStep:
    torch.manual_seed(0)
    return TrainStep(build_classifier(config, 3), config, CPU, None)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Any:
    """All of torch.compile but the code at its end: scripts/bench_train.py compares that too."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    return torch._dynamo.utils.counters["stats"]


def test_a_compiled_trunk_learns_the_same_from_batches_of_any_size(make_config: Any, traced: Any) -> None:
    plain = step_for(make_config(recurrent__dropout=0.0))
    compiled = step_for(make_config(recurrent__dropout=0.0, training__compile=True))
    assert plain.model.state_dict().keys() == compiled.model.state_dict().keys()
    for clips, moments in ((4, 4), (3, 2), (4, 4), (1, 3)):
        losses = []
        for step in (plain, compiled):
            torch.manual_seed(1)
            step.model.train()
            losses.append(step.train([batch(clips, moments)]))
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert traced["unique_graphs"] == 1  # one compilation for all sizes
    check_compiler(CPU)
    for step in (plain, compiled):
        step.model.eval()
    with torch.no_grad():
        one = batch(2, 4)
        expected, found = (s.model(one.inputs, one.lengths) for s in (plain, compiled))
    assert found == pytest.approx(expected, abs=1e-3)


def test_without_a_compiler_training_says_so_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError, match=r"works here \(.*no-such-compiler.*\); install one") as caught:
        check_compiler(CPU)
    assert "\n" not in str(caught.value)
    torch._dynamo.reset()


def test_there_is_nothing_to_compile_for_an_encoder_that_does_not_learn(make_config: Any) -> None:
    for changes in ({"encoder__frozen": True, "encoder__weights": "packaged"}, {"video__streams": "flow"}):
        with pytest.raises(ConfigError, match=r"training\.compile is for an encoder that learns"):
            check_encoder(make_config(training__compile=True, **changes))


def test_mixed_precision_covers_the_encoder_that_is_trained(make_config: Any) -> None:
    step = step_for(make_config(training__precision="bf16"))
    step.model.train()
    encoder: Any = step.model.encoders["rgb"]
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    seen: list[torch.dtype] = []
    for layer in convolutions:
        layer.register_forward_hook(lambda _layer, _given, result: seen.append(result.dtype))
    loss, norm = step.train([batch(4, 4)])
    assert seen == [torch.bfloat16] * len(convolutions) and loss > 0 and norm > 0
    assert {parameter.grad.dtype for parameter in step.model.parameters() if parameter.grad is not None} == {
        torch.float32
    }


def test_frames_and_weights_of_a_trained_encoder_lie_channels_last(make_config: Any) -> None:
    step = step_for(make_config())
    encoder: Any = step.model.encoders["rgb"]
    seen: list[bool] = []
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.in_channels > 1:
            layer.register_forward_hook(
                lambda layer, given, result: seen.extend(
                    x.is_contiguous(memory_format=torch.channels_last) for x in (given[0], layer.weight, result)
                )
            )
    step.model.train()
    for _ in range(2):  # an update leaves them so
        step.train([batch(4, 4)])
    assert seen and all(seen)


@pytest.mark.cuda
def test_pinned_batches_hold_the_same_numbers() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    clips = [{"rgb": torch.full((length, 3, 8, 8), length, dtype=torch.uint8).numpy()} for length in (2, 3)]
    plain, pinned = collate(clips, [0, 1]), collate(clips, [0, 1], pinned=True)
    assert pinned.inputs["rgb"].is_pinned()
    assert torch.equal(plain.inputs["rgb"], pinned.to(torch.device("cuda")).inputs["rgb"].cpu())
