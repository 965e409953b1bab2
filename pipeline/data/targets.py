"""What a clip is to be taken for: a class or a number, once for the clip or for each of its moments.

Whatever moments a view looks at, its targets are computed from exactly these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1
"""Class number of a moment, or of a clip, without a label."""

SLACK = 1e-3
"""Seconds. What begins or ends this little after a frame does so with it: containers round times to milliseconds."""


@dataclass(frozen=True)
class Segments:
    """A class from one moment to another; no two segments overlap.

    Attributes:
        starts, ends: float64 (N,) seconds after the file's first frame, increasing; 0 and infinity where they are open.
        classes: int64 (N,) numbers of the classes.
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    classes: NDArray[np.int64]

    def at(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Class (T,) at each moment: a start belongs to its segment, an end does not; -1 outside every segment."""
        if not len(self.starts):
            return np.full(len(times), UNLABELLED, dtype=np.int64)
        last = np.searchsorted(self.starts, times + SLACK, side="right") - 1
        inside = (last >= 0) & (times < self.ends[last] - SLACK)
        return np.where(inside, self.classes[last], UNLABELLED).astype(np.int64)

    def seconds(self, duration: float) -> dict[int, float]:
        """How long each class lasts in a file of this duration in seconds; those that last at all."""
        lasting = np.maximum(np.minimum(self.ends, duration) - self.starts, 0.0)
        found = {int(number): float(lasting[self.classes == number].sum()) for number in np.unique(self.classes)}
        return {number: length for number, length in found.items() if length > 0}


@dataclass(frozen=True)
class Curve:
    """A number for each moment.

    Attributes:
        times: float64 (N,) seconds after the file's first frame, strictly increasing, N >= 1.
        values: float64 (N,), finite.
    """

    times: NDArray[np.float64]
    values: NDArray[np.float64]

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float32]:
        """Value (T,) at each moment, linear between the given times; NaN before the first and after the last."""
        known = (times >= self.times[0] - SLACK) & (times <= self.times[-1] + SLACK)
        return np.where(known, np.interp(times, self.times, self.values), np.nan).astype(np.float32)


Target: TypeAlias = int | float | Segments | Curve
"""Of a file: the number of its class, a value, or either over time."""

ClipTarget: TypeAlias = int | float | NDArray[np.int64] | NDArray[np.float32]
"""Of a clip: the number of its class, a value, or an array with one of them for each moment."""


def target_at(target: Target, times: NDArray[np.float64]) -> ClipTarget:
    """The target of a clip with these moments, float64 (T,) seconds after the file's first frame."""
    return target.at(times) if isinstance(target, Segments | Curve) else target


def classes_in(target: Target) -> set[int]:
    """Numbers of the classes that occur in a file; empty where there is none."""
    if isinstance(target, Segments):
        return {int(number) for number in target.classes}
    return {target} if isinstance(target, int) and target != UNLABELLED else set()


def class_of(target: Target, duration: float) -> int:
    """The class of a clip that lasts `duration` seconds, for balancing: over time the one that lasts longest (of two
    the lower number); -1 where there is none.
    """
    if isinstance(target, Segments):
        seconds = target.seconds(duration)
        return max(seconds, key=lambda number: (seconds[number], -number), default=UNLABELLED)
    return target if isinstance(target, int) else UNLABELLED
