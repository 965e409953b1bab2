"""Small grey pictures of a source, taken while it is decoded: what duplicates are recognised by."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 64
"""Height and width of a thumbnail in pixels."""

STEP = 0.25
"""Seconds from one thumbnail to the next, as long as there are at most `LIMIT` of them."""

LIMIT = 512


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """uint8 (64, 64) grey of a frame (H, W, 3) in BGR or (H, W) in grey; the whole frame, whatever its shape."""
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)


class Thumbnails:
    """Collects a thumbnail per `STEP` of video time; where there would be more than `LIMIT`, every second one
    goes and the step doubles, so that a day of video costs 2 MB too.

    The moments lie on a grid that begins with the first frame: a thumbnail shows the first frame at or after
    its moment. They depend on the times alone, not on what was seen later.
    """

    def __init__(self) -> None:
        self._kept: list[np.ndarray | None] = []
        self._moments: list[int] = []
        self._start: float | None = None
        self._factor = 1

    def wants(self, time: float) -> bool:
        """Whether the frame at this time (seconds) is the next to be taken."""
        if self._start is None:
            return True
        return self._moment(time) > self._moments[-1]

    def add(self, time: float, small: np.ndarray | None) -> None:
        """Take the thumbnail of the frame at this time; None notes the moment alone."""
        if self._start is None:
            self._start = time
        self._kept.append(small)
        self._moments.append(self._moment(time))
        if len(self._kept) > LIMIT:
            self._factor *= 2
            keep = [i for i, moment in enumerate(self._moments) if moment // 2 != self._before(i) // 2]
            self._kept = [self._kept[i] for i in keep]
            self._moments = [self._moments[i] // 2 for i in keep]

    def _before(self, index: int) -> int:
        return self._moments[index - 1] if index else -2

    def _moment(self, time: float) -> int:
        # A thousandth of a step forgives rounding: 0.25 s must not fall into the step before it.
        return int((time - (self._start or 0.0)) / (STEP * self._factor) + 1e-3)

    def array(self) -> np.ndarray:
        """uint8 (K, 64, 64), K <= 512."""
        taken = [small for small in self._kept if small is not None]
        return np.stack(taken) if taken else np.empty((0, SIDE, SIDE), np.uint8)
