"""Options of what is made of probabilities over time."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.types import ClosedUnitInterval, NonNegativeFloat
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
