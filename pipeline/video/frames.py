"""Every frame of a file, one after the other: one is in memory at a time, however long the file is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from pipeline.video.sources import Source, open_source


class Frames:
    """The frames of an opened file, with the times that `read_frames` gives.

    Attributes:
        expected: seconds that the file claims to last; 0.0 where it does not say.
        count: frames given so far.
        time: seconds of the last one, counted from the first.
        damage: once all are given: why there are no more; empty where the file is whole.
    """

    def __init__(self, source: Source, damage: str) -> None:
        self._source, self._structure = source, damage
        rate = getattr(source, "rate", 0.0)
        known = 1.0 <= rate <= 1000.0 and 0 < source.claimed < 1e9
        self.expected = source.claimed / rate if known else 0.0
        self.count, self.time, self.damage = 0, 0.0, ""

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Frames uint8 (H, W, 3) RGB, newly made, and seconds after the first, increasing."""
        first, failed = self._source.time, False
        while True:
            try:
                picture = self._source.picture()
            except cv2.error:
                picture = None
            if picture is None:
                failed = True
                break
            self.count, self.time = self.count + 1, self._source.time - first
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), self.time
            if not self._source.advance():
                break
        if failed or self._structure or self._source.goes_on():
            reason = self._structure or "the next one is damaged"
            self.damage = f"{self.count} frames decoded, {reason}"


@contextmanager
def open_frames(path: str, megapixels: float = math.inf) -> Iterator[Frames]:
    """Open a video file, an animation, an image or a folder of images; it is released at the end.

    Args:
        path: of the file.
        megapixels: largest frame in millions of pixels.

    Raises:
        VideoError: it gives no frame, or one that is too large.
    """
    with open_source(path, megapixels) as (source, damage):
        yield Frames(source, damage)
