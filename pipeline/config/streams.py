"""Options of streams, and of what is made of probabilities over time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.types import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt
from pipeline.errors import ConfigError


@dataclass
class EventsConfig:
    """When a class is said to happen: by hysteresis, so that a probability near one threshold makes one event."""

    on: ClosedUnitInterval = 0.6
    """An event begins where a class reaches this probability."""
    off: ClosedUnitInterval = 0.4
    """It ends where the class falls below this one."""
    min_length: NonNegativeFloat = 0.5
    """Shortest event in seconds; what is shorter is left out."""
    merge: NonNegativeFloat = 0.5
    """Events of one class that are at most so many seconds apart are one."""

    def __post_init__(self) -> None:
        if self.off > self.on:
            raise ConfigError(f"events.off is {self.off:g}, events.on {self.on:g}; off must be at most on")


@dataclass
class WatchConfig:
    """How streams are watched."""

    rate: PositiveFloat | None = None
    """Moments per second; unset: as the model was trained, or as `tune_watch` stored it in the checkpoint."""
    reset: Literal["auto", "never", "window", "event"] = "auto"
    """When the state begins anew. never; window: an answer is about the last half to whole window; event: when an event
    ends; auto: as `tune_watch` stored it, else never for answers per moment and window for the rest. A gap in a source
    always begins anew."""
    window: PositiveInt | None = None
    """reset window: moments; unset: as stored, else those of a training clip."""
    behind: Literal["auto", "drop", "wait"] = "auto"
    """When the model is slower than a source. drop: the newest moment is answered next, older ones that wait are
    dropped and counted; wait: the source waits; auto: files and standard input wait, the rest drops."""
    realtime: bool = False
    """Read files no faster than they play."""
    every: NonNegativeFloat = 0.0
    """Also write the answer every so many seconds of a source; 0: events alone; of a model of numbers every answer."""
    give_up: NonNegativeFloat = 0.0
    """Seconds after which a lost camera or address is given up; 0: never."""
    ignore: list[str] = field(default_factory=list)
    """Labels that make no events; `data.background` never does."""
    webhook: str | None = None
    """Address that every event is sent to as JSON, by POST."""
    record: str | None = None
    """Video file (.mp4, .avi, .mkv, .webm) of the moments with their answers; of several sources, a file each."""
