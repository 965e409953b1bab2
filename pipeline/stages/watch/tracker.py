"""What one source comes to: its events, and the lines that say so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pipeline.config import EventsConfig
from pipeline.report.events import Event, Events
from pipeline.stages.watch.mailbox import Arrival
from pipeline.stages.watch.stepper import Answer

Line = dict[str, Any]
"""One line of JSON: `type` is start, event, gap, answer, ended or failed."""


class Tracker:
    """Answers of one source in, lines out.

    Args:
        name: of the source.
        classes: labels in the order of the probabilities; none where the answers are numbers.
        config: what an event is.
        ignored: labels that make no events.
        every: seconds between lines with the answer; 0: none, or all where the answers are numbers.
        began: wall-clock time of the stream's second 0; None for a file, whose seconds are its own.

    Attributes:
        answers: counted.
        events: counted.
        ended: whether the last answer ended an event that had been begun.
    """

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        config: EventsConfig,
        ignored: Sequence[str],
        every: float,
        began: datetime | None,
    ) -> None:
        self.name, self.classes = name, list(classes)
        self.answers = self.events = 0
        self.ended = False
        self._found = Events(self.classes, config, ignored)
        self._every, self._began = every, began
        self._said: float | None = None
        self._going: set[str] = set()
        self._announced: dict[str, float] = {}

    def answer(self, arrival: Arrival, answer: Answer) -> list[Line]:
        """One more answer."""
        self.answers += 1
        lines = self._gap(arrival) + self._answer(arrival.time, answer)
        self.ended = False
        if not self.classes:
            return lines
        for event in self._found.push(answer.values, arrival.time):
            lines += [*self._start(event), self._event(event)]
        going = self._found.going_on()
        self.ended = bool(self._going - {event.label for event in going})
        self._going = {event.label for event in going}
        return lines + [line for event in going for line in self._start(event)]

    def flush(self) -> list[Line]:
        """The stream is over, or has a gap: what goes on ends with the last answer."""
        self._going = set()
        return [line for event in self._found.flush() for line in (*self._start(event), self._event(event))]

    def going_on(self) -> list[Event]:
        """The events that are not over."""
        return self._found.going_on() if self.classes else []

    def at(self, time: float) -> str | None:
        """The wall-clock time of a second of the stream, ISO 8601; None for a file."""
        if self._began is None:
            return None
        return (self._began + timedelta(seconds=time)).isoformat(timespec="milliseconds")

    def _gap(self, arrival: Arrival) -> list[Line]:
        if arrival.gap is None:
            return []
        gap = arrival.gap
        return [*self.flush(), self._line("gap", gap.lost, back=_seconds(gap.back))]

    def _answer(self, time: float, answer: Answer) -> list[Line]:
        due = self._said is None or time - self._said >= self._every - 1e-6
        if not due or (self.classes and not self._every):
            return []
        self._said = time
        if not self.classes:
            return [self._line("answer", time, value=float(answer.values[0]))]
        best = int(answer.values.argmax())
        return [self._line("answer", time, label=self.classes[best], probability=_share(answer.values[best]))]

    def _start(self, event: Event) -> list[Line]:
        """Its line, where it was not written yet; an event that goes on after a bridged gap has its start."""
        if self._announced.get(event.label) == event.start:
            return []
        self._announced[event.label] = event.start
        return [self._line("start", event.start, label=event.label, probability=_share(event.confidence))]

    def _event(self, event: Event) -> Line:
        self.events += 1
        return self._line(
            "event",
            event.start,
            end=_seconds(event.end),
            label=event.label,
            confidence=_share(event.confidence),
            peak=_share(event.peak),
            peak_time=_seconds(event.peak_time),
        )

    def _line(self, kind: str, time: float, **values: Any) -> Line:
        at = self.at(time)
        return {"type": kind, "source": self.name, "time": _seconds(time)} | ({"at": at} if at else {}) | values


def _seconds(value: float) -> float:
    return round(value, 3)


def _share(value: float) -> float:
    return round(float(value), 4)
