"""What the demo clips of the tasks other than label show: one object that goes its way for some seconds.

Where it is at one moment tells neither what it does then nor how often it turned: it starts anywhere in a frame whose
opposite borders are joined, and a step that does not depend on where it is made leaves it anywhere. (The position, a
task of its own, is seen; that object stays inside the frame.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Phases, and which way they go; the image's y points down."""
PHASES = (2, 5)
PHASE_SECONDS = (1.0, 2.0)
SPEED = (0.3, 0.7)
"""Frame widths and heights per second."""
TURNS = 6
TURN_SECONDS = (4.0, 6.0)
APART = 0.5
"""Fewest seconds between two turns, and between a turn and either end of the clip."""
SHARPNESS = (np.pi / 3, np.pi)
POSITION_SECONDS = (4.0, 6.0)
DIAMETER = (0.25, 0.45)
"""Of the object, in parts of the frame's shorter side."""


@dataclass(frozen=True)
class Track:
    """One clip to be drawn.

    Attributes:
        path: float64 (T, 4) as `scene.render` takes it: x, y, diameter in pixels, orientation in radians.
        rows: of its list, what stands between path and group.
    """

    path: NDArray[np.float64]
    rows: Sequence[tuple[str, ...]]


def phases(fps: float, size: tuple[int, int], rng: np.random.Generator) -> Track:
    """An object that goes left, right, up, down or stays, one after the other; two neighbours differ."""
    count = int(rng.integers(PHASES[0], PHASES[1] + 1))
    ends = np.cumsum(rng.uniform(*PHASE_SECONDS, size=count)).round(3)
    names = list(DIRECTIONS)
    chosen = [int(rng.integers(len(names)))]
    while len(chosen) < count:
        chosen.append((chosen[-1] + int(rng.integers(1, len(names)))) % len(names))
    velocity = rng.uniform(*SPEED) * np.array([DIRECTIONS[names[n]] for n in chosen], dtype=np.float64)
    times = np.arange(round(ends[-1] * fps)) / fps
    bounds = [f"{end:.3f}" for end in ends[:-1]]
    rows = list(zip(["0", *bounds], [*bounds, ""], [names[n] for n in chosen], strict=True))
    return Track(_drawn(_walked(times, np.array([0.0, *ends[:-1]]), velocity, rng), size, rng), rows)


def turns(fps: float, size: tuple[int, int], rng: np.random.Generator) -> Track:
    """An object that goes straight on but for 0 to 6 sharp turns; the clip's length does not depend on how many."""
    count = int(rng.integers(TURNS + 1))
    times = np.arange(round(rng.uniform(*TURN_SECONDS) * fps)) / fps
    spare = times[-1] - APART * (count + 1)
    starts = np.sort(rng.random(count)) * spare + APART * np.arange(1, count + 1)
    bends = rng.uniform(*SHARPNESS, size=count) * rng.choice([-1, 1], size=count)
    angles = rng.uniform(0, 2 * np.pi) + np.concatenate([[0.0], np.cumsum(bends)])
    velocity = rng.uniform(*SPEED) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    place = _walked(times, np.concatenate([[0.0], starts]), velocity, rng)
    return Track(_drawn(place, size, rng), [(str(count),)])


def position(fps: float, size: tuple[int, int], rng: np.random.Generator) -> Track:
    """An object that swings through the frame and stays inside; the value is x, 0 at the left border and 1 at the
    right one.
    """
    times = np.arange(round(rng.uniform(*POSITION_SECONDS) * fps)) / fps
    path = _drawn(np.stack([_swing(times, rng), _swing(times, rng)], axis=1), size, rng)
    reach = path[:, 2] / 2 + 1  # a pixel for its soft edge
    for axis, length in enumerate(size):
        path[:, axis] = reach + path[:, axis] / length * (length - 2 * reach)
    rows = [(f"{time:.6f}", f"{x / size[0]:.5f}") for time, x in zip(times, path[:, 0], strict=True)]
    return Track(path, rows)


TRACKS: dict[str, tuple[tuple[str, ...], Callable[[float, tuple[int, int], np.random.Generator], Track]]] = {
    "frame_label": (("start", "end", "label"), phases),
    "regression": (("value",), turns),
    "frame_regression": (("time", "value"), position),
}
"""Per task, the columns of its rows and what draws a clip."""


def _walked(
    times: NDArray[np.float64], starts: NDArray[np.float64], velocity: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Places (T, 2) in parts of the frame, from anywhere, at `velocity[n]` from `starts[n]` on; borders are joined."""
    lasting = np.clip(times[:, None] - starts, 0.0, np.append(np.diff(starts), np.inf))
    return (rng.random(2) + lasting @ velocity) % 1.0


def _swing(times: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Two swings of different pace together, between 0 and 1."""
    pace, phase = 2 * np.pi * rng.uniform(0.1, 0.4, size=2), rng.uniform(0, 2 * np.pi, size=2)
    share = rng.uniform(0.5, 1.0)
    first, second = np.sin(pace[0] * times + phase[0]), np.sin(pace[1] * times + phase[1])
    return 0.5 + 0.5 * (share * first + (1 - share) * second)


def _drawn(place: NDArray[np.float64], size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Places in parts of the frame as a path in pixels, of an object of random size and orientation."""
    alike = np.ones((len(place), 1))
    diameter = min(size) * rng.uniform(*DIAMETER)
    return np.concatenate([place * size, alike * diameter, alike * rng.uniform(0, 2 * np.pi)], axis=1)
