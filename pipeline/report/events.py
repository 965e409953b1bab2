"""Events out of probabilities over time: hysteresis, a shortest length, and gaps that are bridged.

Every class is looked at by itself. Memory does not grow: per class there is the event that goes on, or one that has
ended and may still be merged with the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.streams import EventsConfig


@dataclass(frozen=True)
class Event:
    """One class, for a while.

    Attributes:
        label: of the class.
        start, end: seconds. A boundary lies half way between the last moment on one side and the first on the other,
            as in `timed_segments`; where there is no moment on the other side, at the last one.
        confidence: mean probability of its moments; those of bridged gaps are left out.
        peak: the highest.
        peak_time: seconds of that moment.
    """

    label: str
    start: float
    end: float
    confidence: float
    peak: float
    peak_time: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start


@dataclass
class _Open:
    """An event that goes on, or has ended at `end` and may be merged."""

    start: float
    end: float
    total: float = 0.0
    count: int = 0
    peak: float = -math.inf
    peak_time: float = 0.0
    ended: bool = False

    def add(self, probability: float, time: float) -> None:
        self.end, self.ended = time, False
        self.total += probability
        self.count += 1
        if probability > self.peak:
            self.peak, self.peak_time = probability, time


class Events:
    """Probabilities in, events out when they are over.

    Args:
        classes: labels, in the order of the probabilities.
        config: thresholds and lengths.
        ignored: labels that make no events, such as a background.

    Example:
        >>> events = Events(predictor.classes, EventsConfig(on=0.7))
        >>> for time, probabilities in answers:
        ...     for event in events.push(probabilities, time):
        ...         print(event.label, event.start, event.end)
        >>> events.flush()
    """

    def __init__(self, classes: Sequence[str], config: EventsConfig, ignored: Sequence[str] = ()) -> None:
        self.classes, self.config = list(classes), config
        self._counted = [number for number, name in enumerate(self.classes) if name not in set(ignored)]
        self._open: dict[int, _Open] = {}
        self._last: float | None = None

    def push(self, probabilities: NDArray[np.floating], time: float) -> list[Event]:
        """One moment.

        Args:
            probabilities: (K).
            time: seconds, later than that of the moment before.

        Returns:
            The events that are known to be over, by their start. One is known to be over `merge` seconds after its end.
        """
        boundary = time if self._last is None else (self._last + time) / 2
        over = [found for number in self._counted for found in self._look(number, probabilities, time, boundary)]
        self._last = time
        return sorted(over, key=lambda event: event.start)

    def flush(self) -> list[Event]:
        """End everything at the last moment: the stream is over, or there is a gap in it."""
        found = [self._closed(number, event) for number, event in self._open.items()]
        self._open, self._last = {}, None
        return sorted((event for event in found if self._counts(event)), key=lambda event: event.start)

    def going_on(self) -> list[Event]:
        """The events that have lasted long enough to be one and are not over, as they are so far."""
        found = [self._closed(number, event) for number, event in self._open.items() if not event.ended]
        return sorted((event for event in found if self._counts(event)), key=lambda event: event.start)

    def _look(self, number: int, probabilities: NDArray[np.floating], time: float, boundary: float) -> list[Event]:
        """One class at one moment: the event that is over by it, if one is."""
        probability, event, over = float(probabilities[number]), self._open.get(number), []
        if event is not None and event.ended and boundary - event.end > self.config.merge:
            over = [self._closed(number, event)]
            del self._open[number]
            event = None
        running = event is not None and not event.ended
        if probability >= (self.config.off if running else self.config.on):
            if event is None:
                event = self._open[number] = _Open(boundary, time)
            event.add(probability, time)
        elif event is not None and running:
            event.end, event.ended = boundary, True
        return [closed for closed in over if self._counts(closed)]

    def _closed(self, number: int, event: _Open) -> Event:
        confidence = event.total / event.count
        return Event(self.classes[number], event.start, event.end, confidence, event.peak, event.peak_time)

    def _counts(self, event: Event) -> bool:
        return event.length >= self.config.min_length
