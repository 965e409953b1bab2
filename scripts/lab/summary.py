"""From cells to what a page says: scores over seeds, gaps solved, skill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.fit import at_chance
from lab.grid import Cell, Row, gaps_of, initialisations, members
from lab.tasks import Task

Variant = tuple[str, str]
"""Member and initialisation."""


@dataclass(frozen=True)
class Point:
    """One member's scores with one gap, over the seeds.

    Attributes:
        gap: which.
        mean, low, high: of the seeds' scores.
        seeds: how many.
        assumed: seeds whose shorter gap was at chance already, so that chance is taken for this one.
    """

    gap: int
    mean: float
    low: float
    high: float
    seeds: int
    assumed: int


@dataclass(frozen=True)
class Results:
    """Everything measured.

    Attributes:
        tasks: in the order of the page.
        rows: the finished cells.
        seeds: seeds asked for.
        gaps: the gaps asked for; None: all.
        times: member -> time of a training step over the LSTM's; members that were timed.
    """

    tasks: Sequence[Task]
    rows: Mapping[Cell, Row]
    seeds: int
    gaps: Sequence[int] | None
    times: Mapping[str, float]

    def task(self, name: str) -> Task | None:
        """The task of this name, if it was asked for."""
        return next((task for task in self.tasks if task.name == name), None)

    def variants(self) -> list[Variant]:
        """Members and initialisations with a finished cell, in the order of the configuration."""
        there = {(cell.member, cell.init) for cell in self.rows}
        return [(name, init) for name in members() for init in initialisations(name) if (name, init) in there]

    def points(self, task: Task, variant: Variant) -> list[Point]:
        """Scores by gap, shortest first; gaps without any finished or assumed seed are left out."""
        found = []
        for gap in gaps_of(task, variant[0], self.gaps):
            scores, assumed = self._scores(task, variant, gap)
            if scores:
                found.append(Point(gap, float(np.mean(scores)), min(scores), max(scores), len(scores), assumed))
        return found

    def _scores(self, task: Task, variant: Variant, gap: int) -> tuple[list[float], int]:
        """A score per seed that has one, and how many of them are assumed."""
        scores, assumed = [], 0
        for seed in range(self.seeds):
            row = self.rows.get(Cell(task.name, *variant, seed, gap))
            if row is not None:
                scores.append(row.fit.score)
            elif self._gave_up(task, variant, seed, gap):
                scores.append(task.chance)
                assumed += 1
        return scores, assumed

    def _gave_up(self, task: Task, variant: Variant, seed: int, gap: int) -> bool:
        gaps = [other for other in gaps_of(task, variant[0], self.gaps) if other < gap]
        shorter = [self.rows.get(Cell(task.name, *variant, seed, other)) for other in gaps]
        return any(row is not None and at_chance(task, row.fit.score) for row in shorter)

    def parameters(self, variant: Variant) -> int | None:
        """Trainable numbers on the first task that the variant was tried with."""
        for task in self.tasks:
            for cell, row in self.rows.items():
                if cell.task == task.name and (cell.member, cell.init) == variant:
                    return row.fit.parameters
        return None

    def solved(self, task: Task, variant: Variant) -> int | None:
        """The longest gap up to which every mean is solved; None where not even the shortest is."""
        longest = None
        for point in self.points(task, variant):
            if point.mean < task.solved:
                break
            longest = point.gap
        return longest

    def skill(self, variant: Variant, tasks: Iterable[Task], longest: bool = False) -> float | None:
        """Mean over tasks and their own gaps of (score - chance) / (1 - chance), not below 0.

        Args:
            variant: whose.
            tasks: over which.
            longest: of each task the longest gap alone.
        """
        means = []
        for task in tasks:
            points = [point for point in self.points(task, variant) if point.gap in task.gaps]
            values = [max(0.0, (point.mean - task.chance) / (1 - task.chance)) for point in points]
            if values:
                means.append(values[-1] if longest else float(np.mean(values)))
        return float(np.mean(means)) if means else None
