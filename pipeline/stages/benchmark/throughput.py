"""Where the time of a job goes, and how fast this machine could do it at best: arithmetic on measured seconds.

A step's time is what it takes per clip when it has the machine for itself: all cores, or the whole device. Steps on
the same cores share them, whoever runs when, so their times add up; a device that is not the CPU works beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LOADING = ("decode", "transform", "difference", "flow")
"""Steps of the decoding processes."""
ON_CORES = (*LOADING, "tracking")
"""Steps that run on the CPU whatever the device is; the others run where the model is."""

PhaseName = Literal["extraction", "stored features", "epoch", "classification"]


@dataclass(frozen=True)
class Phase:
    """One thing that is done with many clips.

    Attributes:
        name: extraction (frozen encoder: once), stored features (frozen encoder: each epoch), epoch (an encoder that
            is trained), classification.
        seconds: step -> seconds per clip with the machine for itself, in the order of the work.
        rate: clips per second of the real thing, all steps at once.
        waiting: share of that time in which the model waited for clips.
        clips: clip views that go through this in the whole job.
        device: type of the device the model is on.
        occupied: on a CPU, the share of the cores that the model's threads occupy.
    """

    name: PhaseName
    seconds: Mapping[str, float]
    rate: float
    waiting: float
    clips: int
    device: str = "cpu"
    occupied: float = 1.0

    @property
    def shares(self) -> dict[str, float]:
        """Step -> its share of the work; 1 in all."""
        total = sum(self.seconds.values())
        return {step: value / total for step, value in self.seconds.items()}

    @property
    def bottleneck(self) -> str:
        """The longest step of the busiest side: what the bound depends on most."""
        busiest = max(self._sides, key=lambda side: sum(side.values()))
        return max(busiest, key=lambda step: busiest[step])

    @property
    def bound(self) -> float:
        """Clips per second that the machine could do at best."""
        return 1.0 / max(sum(side.values()) for side in self._sides)

    @property
    def efficiency(self) -> float:
        """The real rate over the bound; 1 where nothing waits for anything."""
        return self.rate / self.bound

    @property
    def total(self) -> float:
        """Seconds of the whole job at the real rate."""
        return self.clips / self.rate

    @property
    def _sides(self) -> list[dict[str, float]]:
        """What each part of the machine does one after the other: the cores, and the model, wherever it is."""
        cores = {step: value for step, value in self.seconds.items() if step in ON_CORES}
        model = {step: value for step, value in self.seconds.items() if step not in cores}
        if self.device == "cpu":
            cores |= {step: self.occupied * value for step, value in model.items()}
        return [cores, model]
