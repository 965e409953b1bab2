"""Where a task's sequences come from: made anew for each batch, or drawn from a fixed set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lab import tasks
from lab.tasks import Draw, Sequences, Task

BATCH = 64
SCORED = 500
"""Validation and test sequences of a task that makes them."""
TRAINING, VALIDATION, TEST = 0, 1, 2
"""Streams of random numbers, and splits of a fixed set."""
SPLITS = ("train", "val", "test")
HMM_SEQUENCES = 600
"""Training sequences of a hidden Markov model where the task makes them: it learns from a set, not from a stream."""

TASKS = (
    Task("adding", "adding problem", "length", "number", (20, 50, 100, 200), 1, 0.0, 0.95, 1000, hmm=False),
    Task("copy", "copy memory", "empty steps", "class", (5, 20, 50, 100), 8, 1 / 8, 0.98, 1000, hmm=False),
    Task("order", "temporal order", "length", "class", (10, 20, 50, 100), 4, 1 / 4, 0.98, 800),
    Task("interval", "interval of N or N - 1", "steps", "class", (5, 10, 20, 50), 2, 1 / 2, 0.98, 800),
    Task("digits", "digits, row by row", "empty rows", "class", (0, 10, 20, 50), 10, 1 / 10, 0.90, 600),
    Task("cue", "cue videos", "distractor frames", "class", (5, 10, 20, 50, 100), 4, 1 / 4, 0.95, 400),
)
DRAWN: dict[str, Draw] = {
    "adding": tasks.adding,
    "copy": tasks.copy_memory,
    "order": tasks.temporal_order,
    "interval": tasks.interval,
}


class Source(Protocol):
    """Sequences of one task at one gap."""

    def batch(self, rng: np.random.Generator) -> Sequences:
        """The next training batch."""

    def training_set(self) -> Sequences:
        """A fixed set to learn from."""

    def held_out(self, stream: int) -> Sequences:
        """Sequences that no training sees: VALIDATION or TEST."""


@dataclass(frozen=True)
class Stream:
    """Makes sequences without end.

    Attributes:
        draw: of the task.
        gap: its gap.
        seed: decides, with the stream's number, the sets; batches come from the generator they are given.
    """

    draw: Draw
    gap: int
    seed: int

    def batch(self, rng: np.random.Generator) -> Sequences:
        """See `Source`."""
        return self.draw(self.gap, BATCH, rng)

    def training_set(self) -> Sequences:
        """See `Source`."""
        return self.draw(self.gap, HMM_SEQUENCES, np.random.default_rng([self.seed, TRAINING]))

    def held_out(self, stream: int) -> Sequences:
        """See `Source`."""
        return self.draw(self.gap, SCORED, np.random.default_rng([self.seed, stream]))


@dataclass(frozen=True)
class Fixed:
    """Draws from a set that is split once for all seeds.

    Attributes:
        splits: train, val and test.
    """

    splits: Mapping[str, Sequences]

    def batch(self, rng: np.random.Generator) -> Sequences:
        """See `Source`."""
        train = self.splits["train"]
        return train.take(rng.integers(0, len(train.x), BATCH))

    def training_set(self) -> Sequences:
        """See `Source`."""
        return self.splits["train"]

    def held_out(self, stream: int) -> Sequences:
        """See `Source`."""
        return self.splits[SPLITS[stream]]


def open_source(task: Task, gap: int, seed: int, folder: Path) -> Source:
    """The task's sequences; `folder` holds the features of the cue videos, see `save`."""
    if task.name in DRAWN:
        return Stream(DRAWN[task.name], gap, seed)
    if task.name == "digits":
        return Fixed({split: tasks.digits(gap, split) for split in SPLITS})
    return load(cue_file(folder, gap))


def cue_file(folder: Path, gap: int) -> Path:
    """Where the features of one gap's cue videos are."""
    return folder / f"cue_{gap}.npz"


def save(path: Path, splits: Mapping[str, Sequences]) -> None:
    """Write a fixed set; a killed process leaves none or all of it."""
    arrays = {f"{split}_{name}": getattr(s, name) for split, s in splits.items() for name in ("x", "lengths", "y")}
    part = path.with_name(f"part_{path.name}")
    np.savez(part, **arrays)
    part.replace(path)


def load(path: Path) -> Fixed:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Fixed({s: Sequences(*(stored[f"{s}_{name}"] for name in ("x", "lengths", "y"))) for s in SPLITS})
