"""Mixup and cutmix of clips of different lengths."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import FlowConfig, TrainingConfig, VideoConfig
from pipeline.data.batches import Batch, collate
from pipeline.errors import ConfigError
from pipeline.model.classifier import build_classifier
from pipeline.model.losses import class_loss, mixed_class_loss
from pipeline.stages.checks import check_task
from pipeline.stages.mixing import MixedBatch, mixed
from pipeline.stages.step import TrainStep, class_weights

CPU = torch.device("cpu")
lengths_of_clips = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def vectors(lengths: list[int]) -> Batch:
    """Clip i has the numbers 100 i + 1, 100 i + 2, ... and the class i."""
    clips = [{"rgb": 100.0 * i + np.arange(1, n + 1, dtype=np.float32)[:, None]} for i, n in enumerate(lengths)]
    return collate([{"rgb": clip["rgb"].astype(np.float32)} for clip in clips], list(range(len(lengths))))


def frames(lengths: list[int], size: int = 8) -> Batch:
    """Every pixel of clip i is i + 1."""
    clips = [{"rgb": np.full((n, 3, size, size), i + 1, dtype=np.uint8)} for i, n in enumerate(lengths)]
    return collate(clips, list(range(len(lengths))))


def one(batch: Batch, seed: int = 0, epoch: int = 0, **settings: float) -> MixedBatch:
    (found,) = mixed([batch], TrainingConfig(**settings), seed, epoch)
    assert isinstance(found, MixedBatch)
    return found.to(CPU)


def met(batch: Batch, first: int, second: int, moment: int) -> float:
    """The second clip's number at the same share of its length, by hand."""
    lengths = batch.lengths.tolist()
    return float(batch.inputs["rgb"][second, int((moment + 0.5) * lengths[second] / lengths[first]), 0])


@given(lengths_of_clips, st.integers(0, 99))
def test_mixup_is_the_weighted_mean_of_what_lies_at_the_same_share_of_both_clips(lengths: list[int], seed: int) -> None:
    batch = vectors(lengths)
    found = one(batch, seed, mixup=0.7)
    assert torch.equal(found.lengths, batch.lengths) and torch.equal(found.targets, batch.targets)
    share = float(found.shares[0])
    assert 0 <= share <= 1 and (found.shares == found.shares[0]).all()
    assert sorted(found.others.tolist()) == list(range(len(lengths)))
    for first, second in enumerate(found.partners.tolist()):
        assert found.others[first] == batch.targets[second]
        for moment in range(max(lengths)):
            value = float(found.inputs["rgb"][first, moment, 0])
            if moment >= lengths[first]:
                assert value == 0, "the padding stays empty"
            else:
                own = float(batch.inputs["rgb"][first, moment, 0])
                assert value == pytest.approx(share * own + (1 - share) * met(batch, first, second, moment), rel=1e-5)


@given(lengths_of_clips, st.integers(0, 99))
def test_cutmix_of_vectors_fills_one_span_and_weighs_the_classes_by_it(lengths: list[int], seed: int) -> None:
    batch = vectors(lengths)
    found = one(batch, seed, cutmix=1.0)
    for first, second in enumerate(found.partners.tolist()):
        values = found.inputs["rgb"][first, :, 0]
        own = values[: lengths[first]] == batch.inputs["rgb"][first, : lengths[first], 0]
        if second != first:
            assert float(found.shares[first]) == pytest.approx(float(own.float().mean()))
            strange = torch.nonzero(~own).flatten().tolist()
            assert strange == list(range(strange[0], strange[-1] + 1)) if strange else True
            assert [float(values[m]) for m in strange] == [met(batch, first, second, m) for m in strange]
        assert not values[lengths[first] :].any()


@given(lengths_of_clips, st.integers(0, 99))
def test_cutmix_of_frames_fills_one_box_at_all_moments(lengths: list[int], seed: int) -> None:
    batch = frames(lengths)
    found = one(batch, seed, cutmix=1.0)
    x = found.inputs["rgb"]
    assert x.dtype == torch.uint8
    for first, second in enumerate(found.partners.tolist()):
        clip = x[first, : lengths[first]]
        assert not x[first, lengths[first] :].any()
        assert (clip == clip[0, 0]).all(), "the same box at all moments and in all colours"
        strange = clip[0, 0] == second + 1
        if second != first:
            assert ((clip[0, 0] == first + 1) | strange).all()
            assert float(found.shares[first]) == pytest.approx(1 - float(strange.float().mean()))
            rows, columns = strange.any(1), strange.any(0)
            assert torch.equal(strange, rows.unsqueeze(1) & columns)


def test_where_one_stream_is_vectors_every_stream_gets_the_same_span() -> None:
    images, numbers = frames([4, 4, 2]), vectors([4, 4, 2])
    batch = Batch({**images.inputs, "flow": numbers.inputs["rgb"]}, images.lengths, images.targets, images.times)
    found = one(batch, 5, cutmix=1.0)
    first = int((found.partners != torch.arange(3)).int().argmax())
    rgb, flow = found.inputs["rgb"][first], found.inputs["flow"][first]
    assert rgb.dtype == torch.uint8
    assert (rgb == rgb[:, :1, :1, :1]).all(), "whole frames"
    length = int(batch.lengths[first])
    own_flow = flow[:length, 0] == batch.inputs["flow"][first, :length, 0]
    assert torch.equal(rgb[:length, 0, 0, 0] == first + 1, own_flow) and not own_flow.all()


def test_the_draw_is_a_function_of_seed_epoch_and_number() -> None:
    batch = vectors([5, 3, 4, 5])

    def drawn(seed: int, epoch: int) -> list[list[float]]:
        found = mixed([batch] * 3, TrainingConfig(mixup=0.5, cutmix=1.0), seed, epoch)
        return [b.to(CPU).inputs["rgb"].flatten().tolist() for b in found]

    assert drawn(0, 0) == drawn(0, 0)
    everything = [tuple(values) for seed in (0, 1) for epoch in (0, 1) for values in drawn(seed, epoch)]
    assert len(set(everything)) == len(everything)


def test_a_batch_gets_to_its_device_once_and_an_empty_one_passes() -> None:
    found = one(vectors([3, 4]), 1, mixup=1.0)
    assert torch.equal(found.to(CPU).inputs["rgb"], found.inputs["rgb"])
    empty = collate([], [])
    assert next(mixed([empty], TrainingConfig(mixup=1.0), 0, 0)) is empty


def test_the_loss_weighs_both_classes() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    targets, others = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 0])
    shares, weights = torch.tensor([0.2, 0.9, 1.0, 0.0, 0.5]), torch.tensor([0.5, 1.0, 3.0])
    every = -logits.log_softmax(-1)
    expected = mass = 0.0
    for i in range(5):
        for classes, share in ((targets, shares[i]), (others, 1 - shares[i])):
            expected += float(share * weights[classes[i]] * every[i, classes[i]])
            mass += float(share * weights[classes[i]])
    found = mixed_class_loss(logits, targets, others, shares, weights)
    assert float(found) == pytest.approx(expected / mass, rel=1e-5)
    for smoothing in (0.0, 0.2):
        whole = mixed_class_loss(logits, targets, others, torch.ones(5), weights, smoothing)
        assert float(whole) == pytest.approx(float(class_loss(logits, targets, weights, smoothing)), rel=1e-5)


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_mixed_batches_of_one_update_count_as_one_batch(make_config: Any, balance: str) -> None:
    config = make_config(
        video=VideoConfig(streams="flow", frames=4), flow=FlowConfig(grid=1), recurrent__dropout=0.0,
        training__balance=balance,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    parts = []
    for labels in ([0, 1, 2], [0, 0, 1, 2, 0]):
        clips = [{"flow": rng.normal(size=(4, 2)).astype(np.float32)} for _ in labels]
        parts += mixed([collate(clips, labels)], TrainingConfig(cutmix=1.0), len(labels), 0)
    ready = [part.to(CPU) for part in parts]
    joined = {
        field.name: torch.cat([getattr(part, field.name) for part in ready])
        for field in fields(MixedBatch)
        if field.name not in ("inputs", "failed", "own")
    }
    flow = torch.cat([part.inputs["flow"] for part in ready])
    whole = MixedBatch(inputs={"flow": flow}, own=None, **joined)
    losses = []
    for batches in (parts, [whole]):
        torch.manual_seed(1)
        step = TrainStep(build_classifier(config, 3), config, CPU, class_weights([0, 0, 0, 0, 1, 1, 2], 3, config))
        loss, _ = step.train(batches)
        losses.append((loss, [x.grad.clone() for x in step.model.parameters() if x.grad is not None]))
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-6)
    for mine, other in zip(losses[0][1], losses[1][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_other_tasks_are_refused(make_config: Any, option: str) -> None:
    check_task(make_config(**{f"training__{option}": 1.0}))
    for task in ("frame_label", "regression", "frame_regression"):
        with pytest.raises(ConfigError, match=rf"training\.{option} mixes clips.*{task}"):
            check_task(make_config(task=task, **{f"training__{option}": 1.0}))
