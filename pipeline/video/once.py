"""What a file really holds and the frames that are wanted of it, decoded once instead of twice.

Which frames are wanted depends on the times of all of them, and those are known for certain only at the end. The times
that the container states, taken from its packets without decoding, nearly always choose the same frames: they are kept
on the way. Where the frames found at the end are others, nothing was kept, and they are read as always.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.video.capture import PACKETS, Capture, open_plain
from pipeline.video.clip import Clip, VideoInfo
from pipeline.video.display import resize
from pipeline.video.sources import open_source, unchanged

Choose = Callable[[NDArray[np.float64]], NDArray[np.int64]]
"""From the times of all frames (N,) to the positions of those that are wanted (T,), increasing."""


def read_once(path: str, choose: Choose, megapixels: float = math.inf) -> tuple[VideoInfo, Clip] | None:
    """Decode a whole video once.

    Args:
        path: as of `reader.probe`.
        choose: which frames are wanted.
        megapixels: as of `reader.probe`.

    Returns:
        What `reader.probe` gives, but for marks and thumbnails, and the wanted frames as `reader.read_frames` gives
        them; None where the file has to be read in these two steps.

    Raises:
        VideoError: as of `reader.probe`.
    """
    path = os.fspath(path)
    with unchanged(path), open_source(path, megapixels) as (source, damage):
        if not isinstance(source, Capture):
            return None
        guesses = [choose(times) for times in _likely_times(path, source)]
        if not guesses:
            return None
        kept = _Kept(np.unique(np.concatenate(guesses)))
        times = [source.time]
        kept.look(0, source)
        while source.advance():
            kept.look(len(times), source)
            times.append(source.time)
        if damage or source.goes_on():
            of = f" of {source.claimed}" if source.claimed > len(times) else ""
            damage = f"{len(times)}{of} frames decoded, {damage or 'the next one is damaged'}"
        codec = source.codec
    found = np.array(times, dtype=np.float64)
    wanted = choose(found)
    frames = kept.frames(wanted)
    if frames is None:
        return None
    info = VideoInfo(found, frames.shape[2], frames.shape[1], codec, damage=damage)
    return info, Clip(frames, found[wanted], path)


class _Kept:
    """Frames at these positions, RGB, all of the first one's size, as `reader.read_frames` gives them."""

    def __init__(self, positions: NDArray[np.int64]) -> None:
        self._positions = positions
        self._count = 0
        self._frames: NDArray[np.uint8] | None = None

    def look(self, position: int, source: Capture) -> None:
        """Keep the frame that a source shows, if it is the next of these positions."""
        if self._count == len(self._positions) or self._positions[self._count] != position:
            return
        picture = source.picture()
        if picture is None:
            return  # it and all behind it stay away
        if self._frames is None:
            self._frames = np.empty((len(self._positions), *picture.shape), dtype=np.uint8)
        picture = resize(picture, self._frames.shape[2], self._frames.shape[1])
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=self._frames[self._count])
        self._count += 1

    def frames(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """The wanted frames, if all are there and the first is the one whose size they were given."""
        there = self._positions[: self._count]
        if self._frames is None or there[0] != wanted[0] or not np.isin(wanted, there).all():
            return None
        if len(wanted) == len(self._positions):
            return self._frames
        return self._frames[np.searchsorted(there, wanted)]


def _likely_times(path: str, source: Capture) -> list[NDArray[np.float64]]:
    """What the times of all frames (N,) will probably turn out to be, from the packets; none where they say nothing."""
    with open_plain(path, PACKETS) as packets:
        times = []
        while packets is not None and packets.grab():
            times.append(source.stream_time(packets))
    times.sort()
    times[:1] = [source.time]  # OpenCV gives a packet at 0 the time of its decoding
    stated = np.array(times, dtype=np.float64)
    if np.isfinite(stated).all() and (np.diff(stated) > 0).all():
        return [stated]
    if not 1 <= source.rate <= 1000:
        return []
    # AVI states no times; where frames are reordered, a packet more than there are frames is usual
    return [source.time + np.arange(count) / source.rate for count in (len(times), len(times) - 1) if count > 0]
