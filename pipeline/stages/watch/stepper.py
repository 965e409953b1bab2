"""State carried from moment to moment, per source, and when it begins anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.watch.engine import Engine, Inputs, State

Policy = Literal["never", "window", "event"]
POLICIES: tuple[Policy, ...] = ("never", "window", "event")


@dataclass(frozen=True)
class Reset:
    """When a state begins anew, beside the gaps of its source, where it always does.

    Attributes:
        policy: never; window: two states run side by side, half a window apart, each begins anew after a whole one, and
            the older one answers, so that each answer is about the last half to whole window; event: when an event ends
            (whoever finds the events says so).
        window: moments.
    """

    policy: Policy = "never"
    window: int = 0


@dataclass
class _Row:
    """One state of a source."""

    state: State = None
    age: int = 0


@dataclass(frozen=True)
class Answer:
    """To a source's moments so far.

    Attributes:
        values: probabilities (K), or a number (1,).
        gates: mean of each gate; empty unless wanted.
        age: moments that the state behind it has seen.
    """

    values: NDArray[np.float64]
    gates: dict[str, float]
    age: int


class Stepper:
    """Answers to moments of several sources, one call of the encoder for all that come at once.

    Args:
        engine: what computes.
        sources: how many.
        reset: when states begin anew.
        gates: whether answers have their gates.
    """

    def __init__(self, engine: Engine, sources: int, reset: Reset, gates: bool = False) -> None:
        if reset.policy == "window" and reset.window < 2:
            raise ValueError("a window has two moments at least")
        self._engine, self._reset, self._gates = engine, reset, gates
        self._rows: list[list[_Row]] = [[_Row()] for _ in range(sources)]

    def restart(self, source: int) -> None:
        """The next moment of this source begins anew."""
        self._rows[source] = [_Row()]

    def step(self, moments: Mapping[int, Inputs]) -> dict[int, Answer]:
        """One moment of some of the sources.

        Args:
            moments: source -> what the model reads.

        Returns:
            source -> its answer.
        """
        features = self._engine.encode(list(moments.values()))
        places = {source: place for place, source in enumerate(moments)}
        running = [(source, row) for source in moments for row in self._rows[source]]
        results: dict[int, Answer] = {}
        # what begins has no state to join with the others
        for group in ([x for x in running if x[1].age == 0], [x for x in running if x[1].age > 0]):
            if not group:
                continue
            chosen = self._engine.rows(features, [places[source] for source, _ in group])
            values, after, gates = self._engine.step(chosen, [row.state for _, row in group], self._gates)
            for (source, row), value, state, gate in zip(group, values, after, gates, strict=True):
                row.state, row.age = state, row.age + 1
                if row is self._rows[source][0]:
                    results[source] = Answer(value, gate, row.age)
        if self._reset.policy == "window":
            for source in moments:
                self._turn(self._rows[source])
        return results

    def _turn(self, rows: list[_Row]) -> None:
        """Half a window after the older state began, a younger one begins, which replaces it after a whole one."""
        if rows[0].age >= self._reset.window:
            rows.pop(0)
        if len(rows) == 1 and rows[0].age >= self._reset.window // 2:
            rows.append(_Row())
