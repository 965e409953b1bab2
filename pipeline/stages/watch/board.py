"""What the web page shows, as it is now: written by the loop, read by the server's threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.stages.watch.mailbox import Arrival
from pipeline.stages.watch.stepper import Answer

POINTS, EVENTS, CLASSES = 600, 200, 5
"""Answers per source and events that are kept; classes per answer, where a model has more than twice as many."""


@dataclass
class _Source:
    name: str
    status: str = "waiting"
    picture: np.ndarray | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    points: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=POINTS))


class Board:
    """The last answers, pictures and events; memory does not grow.

    Args:
        model: its name.
        classes: labels; none where the answers are numbers.
        sources: their names.
    """

    def __init__(self, model: str, classes: Sequence[str], sources: Sequence[str]) -> None:
        self.model, self.classes = model, list(classes)
        self._sources = [_Source(name) for name in sources]
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._going: dict[int, list[dict[str, Any]]] = {}
        self._number = 0
        self._lock = threading.Lock()

    def answer(self, source: int, arrival: Arrival, answer: Answer, going: Sequence[str]) -> None:
        """A source's newest moment; `going` are the events that go on."""
        point = {"time": round(arrival.time, 3), "values": self._values(answer.values), "gap": arrival.gap is not None}
        point["gates"] = {name: round(value, 3) for name, value in answer.gates.items()}
        with self._lock:
            self._number += 1
            found = self._sources[source]
            found.picture = arrival.moment.frame
            found.points.append(point | {"number": self._number, "going": list(going)})

    def status(self, source: int, status: str, **counts: Any) -> None:
        """live, lost, ended or failed, and whatever is counted."""
        with self._lock:
            self._sources[source].status = status
            self._sources[source].counts = counts

    def event(self, line: dict[str, Any]) -> None:
        """A line of type event or gap."""
        with self._lock:
            self._number += 1
            self._events.append(line | {"number": self._number})

    def since(self, number: int) -> dict[str, Any]:
        """What is newer than this number, and the number to ask for next."""
        with self._lock:
            return {
                "number": self._number,
                "events": [event for event in self._events if event["number"] > number],
                "sources": [
                    {
                        "status": source.status,
                        "counts": source.counts,
                        "picture": source.points[-1]["number"] if source.points else 0,
                        "points": [point for point in source.points if point["number"] > number],
                    }
                    for source in self._sources
                ],
            }

    def picture(self, source: int) -> np.ndarray | None:
        """The newest frame, uint8 (H, W, 3) RGB; None before the first. Raises IndexError for no source."""
        if source < 0:
            raise IndexError(source)
        with self._lock:
            return self._sources[source].picture

    @property
    def sources(self) -> list[str]:
        """Their names."""
        return [source.name for source in self._sources]

    def _values(self, values: np.ndarray) -> list[tuple[int, float]]:
        """Class and probability, of few classes all, of many the most probable ones; or one number as class 0."""
        chosen = range(len(values)) if len(values) <= 2 * CLASSES else np.argsort(-values)[:CLASSES]
        return [(int(k), round(float(values[k]), 4)) for k in chosen]
