"""The laboratory's tasks: every answer computed again from the inputs, and what knowing nothing is worth."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def tasks() -> Any:
    return importlib.import_module("lab.tasks")


@pytest.fixture(scope="module")
def sources() -> Any:
    return importlib.import_module("lab.sources")


def sum_of_marked(x: np.ndarray) -> np.ndarray:
    assert (x[:, :, 1].sum(1) == 2).all()
    return (x[:, :, 0] * x[:, :, 1]).sum(1, keepdims=True)


def first_symbols(x: np.ndarray) -> np.ndarray:
    assert (x[:, -3:, 8] == 1).all() and (x[:, :-3, 8] == 0).all() and (x[:, 3:, :8] == 0).all()
    return x[:, :3, :8].argmax(2)


def order_of_two(x: np.ndarray) -> np.ndarray:
    assert (x.sum(2) == 1).all()
    answers = []
    for row in x.argmax(2):
        symbols = [s - 4 for s in row if s in (4, 5)]
        assert len(symbols) == 2 and row[0] == 6 and row[-1] == 7 and not np.isin(row[1:-1], (6, 7)).any()
        answers.append([2 * symbols[0] + symbols[1]])
    return np.array(answers)


def steps_between(gap: int) -> Callable[[np.ndarray], np.ndarray]:
    def answer(x: np.ndarray) -> np.ndarray:
        places = np.array([np.flatnonzero(row) for row in x[:, :, 0]])
        return (places[:, 1] - places[:, 0] - (gap - 1))[:, None]

    return answer


ANSWERS: dict[str, Callable[[int], Callable[[np.ndarray], np.ndarray]]] = {
    "adding": lambda _: sum_of_marked,
    "copy": lambda _: first_symbols,
    "order": lambda _: order_of_two,
    "interval": steps_between,
}


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), tens=st.integers(1, 12))
def test_every_answer_follows_from_its_input(sources: Any, name: str, seed: int, tens: int) -> None:
    gap = 10 * tens
    found = sources.DRAWN[name](gap, 8, np.random.default_rng(seed))
    assert found.x.dtype == np.float32 and found.lengths.tolist() == [found.x.shape[1]] * 8
    np.testing.assert_allclose(found.y, ANSWERS[name](gap)(found.x), rtol=1e-6)
    again = sources.DRAWN[name](gap, 8, np.random.default_rng(seed))
    assert (again.x == found.x).all() and (again.y == found.y).all()


def test_the_answer_lies_a_gap_back(tasks: Any) -> None:
    rng = np.random.default_rng(0)
    assert tasks.copy_memory(40, 2, rng).x.shape == (2, 46, 9)
    places = tasks.temporal_order(100, 500, rng).x.argmax(2)
    where = np.array([np.flatnonzero((row == 4) | (row == 5)) for row in places])
    assert (where.min(0) == [10, 50]).all() and (where.max(0) == [19, 59]).all()
    marked = np.array([np.flatnonzero(row) for row in tasks.adding(100, 500, rng).x[:, :, 1]])
    assert marked[:, 0].max() < 50 <= marked[:, 1].min()


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "adding"])
def test_classes_are_balanced_and_guessing_is_worth_chance(sources: Any, name: str) -> None:
    task = next(task for task in sources.TASKS if task.name == name)
    y = sources.DRAWN[name](20, 20_000, np.random.default_rng(1)).y
    shares = np.bincount(y.ravel(), minlength=task.outputs) / y.size
    assert len(shares) == task.outputs and shares == pytest.approx(np.full(task.outputs, task.chance), abs=0.015)


def test_the_mean_is_worth_nothing_in_the_adding_problem(sources: Any, tasks: Any) -> None:
    y = tasks.adding(50, 50_000, np.random.default_rng(1)).y
    assert ((y - 1) ** 2).mean() == pytest.approx(tasks.ADDING_VARIANCE, rel=0.02)
    assert sources.TASKS[0].chance == 0.0


def test_neither_spike_alone_tells_the_interval(tasks: Any) -> None:
    found = tasks.interval(20, 40_000, np.random.default_rng(2))
    places = np.array([np.flatnonzero(row) for row in found.x[:, :, 0]])
    for column, worth in ((0, 0.55), (1, 0.5)):
        right = 0
        for place in np.unique(places[:, column]):
            labels = found.y[places[:, column] == place, 0]
            right += max(labels.sum(), len(labels) - labels.sum())
        assert right / len(found.y) == pytest.approx(worth, abs=0.012)


def test_digits_are_real_rows_and_no_digit_is_in_two_splits(tasks: Any) -> None:
    from sklearn.datasets import load_digits

    parts = {split: tasks.digits(5, split) for split in ("train", "val", "test")}
    assert [len(part.x) for part in parts.values()] == [1078, 359, 360]
    bunch = load_digits()
    rows = (bunch.images / 16).astype(np.float32)
    known = {image.tobytes(): label for image, label in zip(rows, bunch.target, strict=True)}
    for part in parts.values():
        assert part.x.shape[1:] == (13, 8) and (part.x[:, 8:] == 0).all()
        assert [known[x[:8].tobytes()] for x in part.x] == part.y[:, 0].tolist()
        assert np.bincount(part.y[:, 0]).max() / len(part.y) < 0.14
    seen = [x[:8].tobytes() for part in parts.values() for x in part.x]
    assert len(set(seen)) == len(seen)


def test_training_validation_and_test_differ(sources: Any, tmp_path: Any) -> None:
    task = sources.TASKS[0]
    source = sources.open_source(task, 20, 3, tmp_path)
    val, test, train = source.held_out(1), source.held_out(2), source.training_set()
    assert not (val.x == test.x).all() and not (val.x == train.x[: len(val.x)]).all()
    assert (source.held_out(1).x == val.x).all()
    assert not (sources.open_source(task, 20, 4, tmp_path).held_out(1).x == val.x).all()
