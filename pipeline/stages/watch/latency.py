"""Quantiles of durations in constant memory."""

from __future__ import annotations

import math

import numpy as np

SHORTEST, LONGEST, STEP = 1e-6, 1e5, 1.02
"""Seconds; a duration is known to two percent."""


class Latency:
    """A histogram whose bins grow by two percent each."""

    def __init__(self) -> None:
        self._counts = np.zeros(int(math.log(LONGEST / SHORTEST) / math.log(STEP)) + 2, dtype=np.int64)

    def add(self, seconds: float) -> None:
        """One duration."""
        inside = min(max(seconds, SHORTEST), LONGEST)
        self._counts[int(math.log(inside / SHORTEST) / math.log(STEP))] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of the durations did not exceed, to two percent; None before the first."""
        if not self._counts.any():
            return None
        place = int(np.searchsorted(np.cumsum(self._counts), share * self._counts.sum()))
        return SHORTEST * STEP ** (place + 0.5)
