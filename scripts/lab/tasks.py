"""The tasks of the gap laboratory that need no video: sequences whose answer lies a known number of steps back.

Each is correct by construction: `tests/scripts/test_gap_tasks.py` computes the answers again from the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["class", "number"]

ALPHABET, RECALLED = 8, 3
"""Copy memory: number of symbols, and how many are to be repeated."""
FILLERS = 4
"""Temporal order: symbols that mean nothing."""
JITTER = 10
"""Interval: steps by which the second spike's place varies."""
ROWS = 8
"""Rows and columns of a digit."""


@dataclass(frozen=True)
class Sequences:
    """Some sequences and their answers.

    Attributes:
        x: float32 (B, T, D), 0 in the padding.
        lengths: int64 (B), 1..T.
        y: the answers at the last K valid steps: int64 (B, K) classes, or float32 (B, K) numbers.
    """

    x: NDArray[np.float32]
    lengths: NDArray[np.int64]
    y: NDArray[np.int64] | NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> Sequences:
        """These rows alone."""
        return Sequences(self.x[rows], self.lengths[rows], self.y[rows])


Draw = Callable[[int, int, np.random.Generator], Sequences]
"""(gap, count, generator) to that many new sequences."""


@dataclass(frozen=True)
class Task:
    """What is asked, and how its score is read.

    The score is the accuracy of a class, or 1 - MSE / variance of a number (R2), so that 1 is perfect.

    Attributes:
        name: key in tables.
        title: for people.
        gap: what the number called gap counts.
        kind: class, or number.
        gaps: shortest first.
        outputs: number of classes; 1 for a number.
        chance: score of the best answer that does not look at the sequence.
        solved: score from which the task counts as solved.
        updates: optimiser steps that a training may take.
        hmm: whether one hidden Markov model per class is a classifier for it.
    """

    name: str
    title: str
    gap: str
    kind: Kind
    gaps: tuple[int, ...]
    outputs: int
    chance: float
    solved: float
    updates: int
    hmm: bool = True


ADDING_VARIANCE = 2 / 12
"""Variance of the sum of two independent uniform numbers: the MSE of always answering 1."""


def adding(gap: int, count: int, rng: np.random.Generator) -> Sequences:
    """Two of `gap` numbers are marked, one in each half; their sum is asked for (Hochreiter and Schmidhuber 1997).

    x: (B, gap, 2), a number from 0..1 and a mark that is 0 or 1.
    """
    half = gap // 2
    x = np.zeros((count, gap, 2), dtype=np.float32)
    x[:, :, 0] = rng.random((count, gap), dtype=np.float32)
    rows = np.arange(count)
    first, second = rng.integers(0, half, count), rng.integers(half, gap, count)
    x[rows, first, 1] = x[rows, second, 1] = 1
    total = x[rows, first, 0] + x[rows, second, 0]
    return Sequences(x, np.full(count, gap), total[:, None])


def copy_memory(gap: int, count: int, rng: np.random.Generator) -> Sequences:
    """Repeat the first 3 symbols after `gap` empty steps (after Hochreiter and Schmidhuber 1997, Arjovsky 2016).

    x: (B, 3 + gap + 3, 9), one-hot symbols; the last channel is 1 in the 3 steps that must answer. Only those are
    scored: scoring the empty steps too would make 0.9 out of knowing nothing.
    """
    symbols = rng.integers(0, ALPHABET, (count, RECALLED))
    x = np.zeros((count, gap + 2 * RECALLED, ALPHABET + 1), dtype=np.float32)
    x[np.arange(count)[:, None], np.arange(RECALLED), symbols] = 1
    x[:, -RECALLED:, ALPHABET] = 1
    return Sequences(x, np.full(count, x.shape[1]), symbols)


def temporal_order(gap: int, count: int, rng: np.random.Generator) -> Sequences:
    """Which of X and Y came first and which second, among fillers: 4 classes (Hochreiter and Schmidhuber 1997, 6a).

    x: (B, gap, 8) one-hot: four fillers, X, Y, start, end. As in the original, where the length is 100 to 110, the
    first symbol stands between 0.1 and 0.2 of the length, the second between 0.5 and 0.6.
    """
    tenth = max(gap // 10, 1)
    symbols = rng.integers(0, FILLERS, (count, gap))
    rows = np.arange(count)
    first, second = rng.integers(0, 2, count), rng.integers(0, 2, count)
    symbols[rows, tenth + rng.integers(0, tenth, count)] = FILLERS + first
    symbols[rows, 5 * tenth + rng.integers(0, tenth, count)] = FILLERS + second
    symbols[:, 0] = FILLERS + 2
    symbols[:, -1] = FILLERS + 3
    x = np.eye(FILLERS + 4, dtype=np.float32)[symbols]
    return Sequences(x, np.full(count, gap), (2 * first + second)[:, None])


def interval(gap: int, count: int, rng: np.random.Generator) -> Sequences:
    """Were there `gap` steps between two spikes, or one fewer? (after Gers, Schraudolph and Schmidhuber 2002).

    x: (B, gap + 10, 1). The place of the second spike is drawn first, evenly from the last 10 steps and for both
    classes alike. What the first spike's place alone tells is worth 0.55. Gers et al. feed one stream of intervals of
    49 or 50 steps; here each interval is a sequence of its own.
    """
    label = rng.integers(0, 2, count)
    second = gap + rng.integers(0, JITTER, count)
    x = np.zeros((count, gap + JITTER, 1), dtype=np.float32)
    rows = np.arange(count)
    x[rows, second] = x[rows, second - (gap - 1 + label)] = 1
    return Sequences(x, np.full(count, gap + JITTER), label[:, None])


def digits(gap: int, split: str) -> Sequences:
    """scikit-learn's handwritten digits, a row of 8 pixels per step, then `gap` empty rows; 10 classes.

    Args:
        gap: empty rows after the 8.
        split: train (60 % of the 1,797 digits), val or test (20 % each).

    x: (B, 8 + gap, 8), 0..1.
    """
    images, labels = _digits()
    order = np.random.default_rng(0).permutation(len(images))
    train, val = int(0.6 * len(order)), int(0.8 * len(order))
    chosen = {"train": order[:train], "val": order[train:val], "test": order[val:]}[split]
    x = np.zeros((len(chosen), ROWS + gap, ROWS), dtype=np.float32)
    x[:, :ROWS] = images[chosen]
    return Sequences(x, np.full(len(chosen), ROWS + gap), labels[chosen][:, None])


@cache
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)
