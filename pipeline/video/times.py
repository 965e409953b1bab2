"""Timestamps that increase: the file's own, and a stand-in where it has none."""

from __future__ import annotations

import math

LATEST = 1e9
"""Seconds; what lies beyond is no time but a number that nobody set."""

SMALLEST = 1e-6
"""Seconds between two frames at least; what is closer is one time given twice."""


class Clock:
    """Makes the timestamps of one pass strictly increasing.

    A timestamp is kept where it is a number later than the one before. Otherwise (raw streams say 0 for every frame,
    decoders flush the last frames of some AVIs without a time, joined streams start again) the frame comes one
    step after the one before: the last step between two of the file's own times, at first the nominal one. The
    rule looks only backwards, so reading a part of a file gives the times that decoding the whole of it gave.

    Attributes:
        repaired: how many frames were given a time.
    """

    def __init__(self, rate: float) -> None:
        """Args: rate: nominal frames per second; outside 1 to 1000 it is taken for an error, 25 is used."""
        self.repaired = 0
        self._step = 1.0 / rate if 1.0 <= rate <= 1000.0 else 1.0 / 25.0
        self._last = -math.inf
        self._own = False

    def tick(self, time: float) -> float:
        """The time of the next frame, in seconds, for what the stream says it is."""
        usable = math.isfinite(time) and abs(time) < LATEST
        if self._last == -math.inf:
            usable = usable and time >= 0
            self._last = time if usable else 0.0
        elif usable and time - self._last >= SMALLEST:
            if self._own:
                self._step = time - self._last
            self._last = time
        else:
            usable = False
            self._last += self._step
        self._own = usable
        self.repaired += not usable
        return self._last

    def jump(self, time: float) -> None:
        """Go on from a time of the file's own that was reached by seeking."""
        self._last, self._own = time, True
