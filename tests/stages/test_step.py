"""One update: several batches as one, the average of the weights, logit adjustment."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from pipeline.config import FlowConfig, TrainingConfig, VideoConfig
from pipeline.data.batches import Batch, collate
from pipeline.errors import ConfigError, DataError
from pipeline.model.classifier import build_classifier
from pipeline.model.losses import class_loss
from pipeline.stages.checks import check_task
from pipeline.stages.fit import updates_of
from pipeline.stages.step import TrainStep, class_weights, log_prior

LABELS = [0, 0, 0, 1, 2, 2, 0, 1, 0]


def make_step(make_config: Any, **changes: Any) -> TrainStep:
    """A small model of flow vectors: nothing in it looks at more than one clip."""
    base = {"video": VideoConfig(streams="flow", frames=4), "flow": FlowConfig(grid=1), "recurrent__dropout": 0.0}
    config = make_config(**(base | changes))
    torch.manual_seed(3)
    model = build_classifier(config, 3)
    weights, prior = class_weights(LABELS, 3, config), log_prior(LABELS, 3, config)
    return TrainStep(model, config, torch.device("cpu"), weights, prior)


def make_batch(indices: list[int], per_moment: bool = False) -> Batch:
    rng = [np.random.default_rng(index) for index in indices]
    lengths = [2 + index % 3 for index in indices]
    inputs = [{"flow": r.normal(size=(n, 2)).astype(np.float32)} for r, n in zip(rng, lengths, strict=True)]
    if per_moment:
        targets: list[Any] = [r.integers(-1, 3, n) for r, n in zip(rng, lengths, strict=True)]
    else:
        targets = [LABELS[index] for index in indices]
    return collate(inputs, targets)


def gradients(step: TrainStep) -> dict[str, torch.Tensor]:
    return {name: x.grad.clone() for name, x in step.model.named_parameters() if x.grad is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__balance": "weights", "training__label_smoothing": 0.1},
        {"training__logit_adjustment": 1.0},
        {"task": "frame_label", "training__balance": "weights"},
    ],
)
def test_batches_of_one_update_count_as_one_batch(make_config: Any, changes: dict[str, Any]) -> None:
    per_moment = changes.get("task") == "frame_label"
    parts = [make_batch(part, per_moment) for part in ([0, 1, 2], [3, 4, 5, 6], [7, 8])]
    whole = make_batch(list(range(9)), per_moment)
    several, one = make_step(make_config, **changes), make_step(make_config, **changes)
    (loss, norm), (expected_loss, expected_norm) = several.train(parts), one.train([whole])
    assert loss == pytest.approx(expected_loss, abs=1e-6) and norm == pytest.approx(expected_norm, abs=1e-6)
    ours, theirs = gradients(several), gradients(one)
    assert ours.keys() == theirs.keys() and len(ours) > 5
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)
    for mine, other in zip(several.model.parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    equal = sum(make_step(make_config, **changes).train([part])[0] for part in parts) / 3
    assert abs(equal - expected_loss) > 1e-4, "the plain mean of the batches' losses is another number"


class Five:
    """Five batches of one clip each."""

    labels: ClassVar = [0] * 5

    def batches(self, epoch: int, order: Any, mine: Any = slice(None)) -> Any:
        return (make_batch([index]) for index in order)


@pytest.mark.parametrize(("accumulate", "sizes"), [(2, [2, 2, 1]), (1, [1] * 5), (7, [5])])
def test_the_last_group_of_an_epoch_has_what_is_left(make_config: Any, accumulate: int, sizes: list[int]) -> None:
    groups = updates_of(Five(), make_config(training__accumulate=accumulate), 0)  # type: ignore[arg-type]
    assert [len(group) for group in groups] == sizes


def test_the_rate_follows_the_updates_not_the_batches(make_config: Any, tmp_path: Any) -> None:
    from pipeline.stages.train import train

    seen: list[float] = []
    rates = {}
    original = TrainStep.train

    def watched(self: TrainStep, batches: Any) -> Any:
        seen.append(self.optimizer.param_groups[0]["lr"])
        return original(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "train", watched)
        for accumulate, size in ((1, 4), (2, 2)):
            seen.clear()
            config = make_config(training__accumulate=accumulate, training__batch_size=size, training__epochs=1)
            train(config, tmp_path / f"{accumulate}")
            rates[accumulate] = list(seen)
    assert len(rates[1]) > 2 and rates[2] == rates[1]


def test_the_average_follows_its_formula_and_leaves_the_model_alone(make_config: Any) -> None:
    plain, step = make_step(make_config), make_step(make_config, training__ema=0.6)
    assert step.average is not None and plain.average is None
    expected = {name: x.double().clone() for name, x in step.model.state_dict().items()}
    for number in range(20):
        batches = [make_batch([number % 9, (number + 4) % 9])]
        assert plain.train(batches) == step.train(batches)
        decay = min(0.6, (1 + number) / (10 + number))
        for name, x in step.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * x.double()
    own = {name: x.clone() for name, x in step.model.state_dict().items()}
    with step.averaged():
        for name, x in step.model.state_dict().items():
            torch.testing.assert_close(x.double(), expected[name], rtol=1e-5, atol=1e-6)
            assert torch.equal(x, step.kept()[name])
    assert all(torch.equal(x, own[name]) for name, x in step.model.state_dict().items())
    assert not torch.equal(own["branches.flow.output.weight"], step.kept()["branches.flow.output.weight"])
    assert all(torch.equal(x, own[name]) for name, x in plain.model.state_dict().items())
    assert all(torch.equal(x, own[name]) for name, x in plain.kept().items())


def test_batch_norms_statistics_are_averaged_and_its_count_is_copied(make_config: Any) -> None:
    from pipeline.stages.average import Average

    norm = torch.nn.BatchNorm1d(2)
    average = Average(norm, 0.999)
    norm(torch.randn(8, 2) + 5)
    average.update()
    torch.testing.assert_close(average.weights["running_mean"], 0.9 * norm.running_mean)
    assert int(average.weights["num_batches_tracked"]) == 1


def test_what_is_still_is_no_part_of_the_average_but_of_what_is_kept() -> None:
    from pipeline.stages.average import Average

    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    average = Average(model, 0.5, ("encoder.",))
    with torch.no_grad():
        model["head"].weight += 1
    average.update()
    assert average.weights.keys() == model.state_dict().keys()
    assert {name for name in average.tensors() if "encoder" in name} == set()
    assert torch.equal(average.weights["encoder.weight"], model["encoder"].weight)
    with average.in_place():
        inside = model["head"].weight.detach().clone()
    assert torch.equal(inside, average.weights["head.weight"]) and not torch.equal(inside, model["head"].weight)


def test_an_update_that_the_scaler_leaves_out_is_no_error_and_not_averaged(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = make_step(make_config, training__ema=0.5)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=1000)
    plain = step.loss
    monkeypatch.setattr(step, "loss", lambda outputs, targets: 2.0**10 * plain(outputs, targets))
    before = {name: x.clone() for name, x in step.model.state_dict().items()}
    assert step.average is not None
    done = []
    for _ in range(9):
        loss, norm = step.train([make_batch([0, 3, 4])] * 2)
        assert math.isfinite(loss)
        done.append(math.isfinite(norm))
        if not any(done):
            assert all(torch.equal(x, before[name]) for name, x in step.model.state_dict().items())
    assert not done[0] and done[-1], "the scale starts too high and is halved until the gradient fits"
    assert step.average.updates == sum(done)


def test_logit_adjustment_adds_the_log_of_the_classes_shares_in_training_alone(make_config: Any) -> None:
    step = make_step(make_config, training__logit_adjustment=2.0)
    plain = make_step(make_config)
    batch = make_batch([0, 3, 4])
    logits = plain.logits(batch)["flow"]
    shares = torch.tensor([5 / 9, 2 / 9, 2 / 9])
    expected = class_loss(logits + 2 * shares.log(), batch.targets)
    torch.testing.assert_close(step.loss(logits, batch.targets), expected)
    assert all(torch.equal(step.logits(batch)[name], x) for name, x in plain.logits(batch).items())
    config = make_config(training__logit_adjustment=1.0)
    absent = log_prior([0, 0, 2], 4, config)
    assert absent is not None and absent.isfinite().all() and absent[1] == absent[2]
    assert log_prior([0, 1], 2, make_config()) is None


def test_options_that_do_not_fit_together_are_refused(make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"logit_adjustment.*balance weights.*use one"):
        TrainingConfig(logit_adjustment=1.0, balance="weights")
    config = replace(make_config(training__logit_adjustment=1.0), task="regression")
    with pytest.raises(ConfigError, match=r"training\.logit_adjustment is about classes"):
        check_task(config)


def test_a_loss_that_is_no_number_ends_the_training_whatever_is_switched_on(make_config: Any, tmp_path: Any) -> None:
    from pipeline.stages.train import train

    training = TrainingConfig(
        epochs=4, batch_size=4, learning_rate=1e30, clip_norm=0.0, warmup=0.0, workers=0, device="cpu",
        accumulate=2, ema=0.9, mixup=0.5, logit_adjustment=1.0,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"the loss is not a number in epoch \d; lower training\.learning_rate"):
        train(make_config(training=training), tmp_path / "run")


def test_collapsed_predictions_are_noticed_whatever_is_switched_on(
    make_config: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages import start
    from pipeline.stages.train import train

    build = start.build_classifier

    def collapsed(*arguments: Any) -> Any:
        model = build(*arguments)
        with torch.no_grad():
            model.branches["rgb"].output.bias[1] = 100.0  # type: ignore[union-attr, operator]
        return model

    monkeypatch.setattr(start, "build_classifier", collapsed)
    training = TrainingConfig(
        epochs=3, batch_size=4, learning_rate=1e-9, warmup=0.0, workers=0, device="cpu",
        accumulate=2, ema=0.9, cutmix=1.0, logit_adjustment=1.0,
    )  # fmt: skip
    train(make_config(training=training), tmp_path / "run")
    assert "warning: predictions collapse" in capsys.readouterr().err
