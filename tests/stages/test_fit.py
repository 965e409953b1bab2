from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.optimise import rate_factor
from pipeline.stages.sources import epoch_order
from pipeline.stages.step import class_weights

labels_of_up_to_four_classes = st.lists(st.integers(0, 3), min_size=1, max_size=60)


@given(labels_of_up_to_four_classes, st.sampled_from(["none", "weights"]), st.integers(0, 99), st.integers(0, 99))
def test_an_epoch_reads_each_clip_once(labels: list[int], balance: str, seed: int, epoch: int) -> None:
    order = epoch_order(labels, balance, seed, epoch)
    assert sorted(order) == list(range(len(labels)))
    assert order == epoch_order(labels, balance, seed, epoch)


def test_the_order_changes_with_seed_and_epoch() -> None:
    orders = [tuple(epoch_order([0] * 30, "none", seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


@given(labels_of_up_to_four_classes, st.integers(0, 99), st.integers(0, 99))
def test_the_balanced_sampler_draws_as_many_and_only_what_there_is(labels: list[int], seed: int, epoch: int) -> None:
    order = epoch_order(labels, "sampler", seed, epoch)
    assert len(order) == len(labels) and set(order) <= set(range(len(labels)))
    assert order == epoch_order(labels, "sampler", seed, epoch)


def test_the_balanced_sampler_draws_rare_classes_as_often() -> None:
    labels = [0] * 95 + [3] * 5  # classes 1 and 2 have no clip
    drawn = Counter(labels[i] for epoch in range(50) for i in epoch_order(labels, "sampler", 0, epoch))
    assert drawn.keys() == {0, 3} and 0.45 < drawn[3] / drawn.total() < 0.55


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 50))
def test_the_rate_rises_to_one_peak_and_falls_towards_nothing(steps: int, epochs: int, warmup: float) -> None:
    factors = [rate_factor(step, steps, epochs, warmup) for step in range(steps * epochs)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = int(np.argmax(factors))
    assert all(a < b for a, b in itertools.pairwise(factors[: peak + 1]))
    assert all(a >= b for a, b in itertools.pairwise(factors[peak:]))
    assert peak <= min(steps * warmup, steps * epochs / 2) + 1


def test_the_rate_without_warm_up_starts_at_its_peak_and_ends_near_nothing() -> None:
    assert rate_factor(0, 10, 5, 0.0) == 1.0
    assert rate_factor(49, 10, 5, 0.0) < 0.01
    assert rate_factor(25, 10, 5, 0.0) == pytest.approx(0.5)


def test_class_weights_make_each_class_weigh_the_same(make_config: Any) -> None:
    labels = [0] * 6 + [2] * 3 + [3]  # class 1 has no clip
    assert class_weights(labels, 4, make_config()) is None
    weights = class_weights(labels, 4, make_config(training__balance="weights"))
    assert weights is not None and weights.dtype == torch.float32 and torch.isfinite(weights).all()
    totals = torch.bincount(torch.tensor(labels), minlength=4) * weights
    assert totals[[0, 2, 3]].tolist() == pytest.approx([10 / 3] * 3)
