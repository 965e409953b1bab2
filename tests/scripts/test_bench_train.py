"""The benchmark of training: what it compares is the same training, and its names mean what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def bench() -> Any:
    import bench_train

    return bench_train


@pytest.fixture
def small(make_config: Any) -> Any:
    """A frozen encoder with random weights, dropout and several views: everything that draws random numbers."""
    frozen = {"encoder__name": "mobilenet_v3_small", "encoder__frozen": True}
    return make_config(**frozen, augmentation__views=3, training__epochs=2)


def test_an_epoch_on_stored_features_is_the_epoch_that_decodes_to_the_last_bit(bench: Any, small: Any) -> None:
    fits = bench.both_ways(small)
    stored, decoding = fits["stored"], fits["decoding"]
    assert len(stored.history) == 2 and stored.history == decoding.history
    assert {"train_loss", "val_loss", "val_top1", "gradient_norm"} <= stored.history[0].keys()
    assert len(stored.seconds) == len(stored.tracking) == 1  # the first epoch starts processes
    assert stored.epoch < decoding.epoch
    other = bench.both_ways(replace(small, seed=1))["stored"]
    assert other.history != stored.history  # equal numbers are no accident


def test_what_is_not_the_same_training_is_not_compared(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {"decoding": 0.5, "stored": 0.5 + 1e-15}
    fits = {way: bench.Fit([1.0], [0.1], [{"train_loss": loss}]) for way, loss in losses.items()}
    monkeypatch.setattr(bench, "both_ways", lambda config: fits)
    with pytest.raises(RuntimeError, match="other numbers"):
        bench.bench_cached("", quick=True)


def test_a_trunk_in_planes_computes_the_same(bench: Any, make_config: Any) -> None:
    torch.manual_seed(0)
    encoder: Any = bench.build_classifier(make_config(), 3).encoders["rgb"]
    frames = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    layouts: list[bool] = []
    encoder.trunk.register_forward_pre_hook(lambda _, given: layouts.append(given[0].is_contiguous()))
    expected = encoder.train()(frames)
    bench.as_planes(encoder)
    assert encoder(frames).detach() == pytest.approx(expected.detach(), abs=1e-5)
    assert layouts == [False, True]


def test_a_row_is_the_first_over_the_second(bench: Any) -> None:
    rows = [bench.Row("cached_speedup", ("decoding", "stored"), (3.0, 0.1))]
    assert rows[0].ratio == pytest.approx(30)
    assert "| cached_speedup | decoding | 3000.0 | stored | 100.0 | 30.00 |" in bench.table(
        {"loader_efficiency": 0.9}, rows
    )
