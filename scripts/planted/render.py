"""Clips whose label lies in a few known frames and a known region; everywhere else they are like one another.

- pattern: a square with one of four textures appears for three frames. Before and after, squares of the same size and
  colours without a texture appear elsewhere, so neither a square's appearance nor its place says anything.
- motion: a disc moves left, right, up or down for five frames and stands still before and after. Elsewhere another disc
  trembles all the time, so that motion as such says nothing.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.data.backdrop import background, photographs
from pipeline.video.writer import write_video

CLASSES = {"pattern": ("across", "upright", "checks", "rings"), "motion": ("left", "right", "up", "down")}
FRAMES = {"pattern": 12, "motion": 16}
FPS = 10.0
SIZE = {"pattern": 64, "motion": 128}
SHARES = {"train": 0.62, "val": 0.13, "test": 0.25}

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Truth:
    """Where a clip's evidence lies.

    Attributes:
        path: below the folder.
        first, last: frames, both included.
        box: left, top, right, bottom in parts of the frame.
    """

    path: str
    first: int
    last: int
    box: tuple[float, float, float, float]


def write_planted(kind: str, folder: Path, clips: int, seed: int) -> list[Truth]:
    """Render a data set with its list `clips.csv`, and `truth.json`; the truth of its test clips is returned."""
    rng = np.random.default_rng([seed, len(kind)])
    images = photographs()
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    splits = np.repeat(list(SHARES), np.diff(np.round(np.cumsum([0, *SHARES.values()]) * clips).astype(int)))
    truths, rows = [], []
    for number, split in enumerate(splits):
        label = CLASSES[kind][number % 4]
        base = background(images, "test" if split == "test" else "train", (SIZE[kind],) * 2, rng)
        frames, first, last, box = (pattern if kind == "pattern" else motion)(base, label, rng)
        path = f"clips/{number:04d}.avi"
        write_video(str(folder / path), frames, FPS)
        rows.append((path, label, f"g{number:04d}", split))
        if split == "test":
            truths.append(Truth(path, first, last, box))
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group", "split"), *rows])
    (folder / "truth.json").write_text(json.dumps([asdict(truth) for truth in truths], indent=1), encoding="utf-8")
    return truths


def pattern(base: Frames, label: str, rng: np.random.Generator) -> tuple[Frames, int, int, tuple[float, ...]]:
    """Squares that come and go, one of them with a texture."""
    side, size = 24, len(base)
    frames = noisy(base, FRAMES["pattern"], rng)
    first = int(rng.integers(1, len(frames) - 4))
    last = first + 2
    shown = rng.integers(0, size - side, 2)
    paste(frames[first : last + 1], square(label, side, rng), shown)
    others = [t for t in range(0, len(frames) - 2, 3) if not first - 2 <= t <= last]
    for start in others:  # blank squares in most of the other frames
        paste(frames[start : start + 3], square("", side, rng), rng.integers(0, size - side, 2))
    x, y = (int(v) for v in shown)
    return frames, first, last, (x / size, y / size, (x + side) / size, (y + side) / size)


def square(texture: str, side: int, rng: np.random.Generator) -> Frames:
    """uint8 (side, side, 3) of two colours; without a texture, of their mixture."""
    light, dark = rng.uniform(190, 255, 3), rng.uniform(0, 70, 3)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    waves = {
        "across": np.sin(0.9 * y),
        "upright": np.sin(0.9 * x),
        "checks": np.sin(0.75 * x) * np.sin(0.75 * y),
        "rings": np.sin(0.9 * np.hypot(x, y)),
    }
    share = (
        (waves[texture] > 0).astype(float)[..., None] if texture else np.full((side, side, 1), rng.uniform(0.2, 0.8))
    )
    return np.rint(share * light + (1 - share) * dark).astype(np.uint8)


def motion(base: Frames, label: str, rng: np.random.Generator) -> tuple[Frames, int, int, tuple[float, ...]]:
    """One disc goes one way for five frames, another one trembles."""
    radius, size, steps, stride = 11, len(base), 5, 5
    first = int(rng.integers(2, FRAMES["motion"] - steps - 1))
    last = first + steps - 1
    way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[label]
    reach = radius + stride * steps
    start = rng.integers(reach, size - reach, 2)
    while True:  # the other one keeps off the first one's way
        other = rng.integers(radius + 3, size - radius - 3, 2)
        if np.abs(other - start).max() > reach + radius + 3:
            break
        start = rng.integers(reach, size - reach, 2)
    looks = rng.uniform(0, 255, (2, 3))
    frames = noisy(base, FRAMES["motion"], rng)
    for t, frame in enumerate(frames):
        gone = stride * int(np.clip(t - first + 1, 0, steps))
        disc(frame, start + np.array(way) * gone, radius, looks[0])
        disc(frame, other + rng.integers(-2, 3, 2), radius, looks[1])
    ends = np.stack([start, start + np.array(way) * stride * steps])
    (left, top), (right, bottom) = ends.min(0) - radius, ends.max(0) + radius
    return frames, first, last, tuple(float(v) / size for v in (left, top, right, bottom))


def noisy(base: Frames, count: int, rng: np.random.Generator) -> Frames:
    """uint8 (T, H, W, 3): the background with new grain in every frame."""
    grain = rng.integers(-6, 7, (count, *base.shape), dtype=np.int16)
    return np.clip(base.astype(np.int16) + grain, 0, 255).astype(np.uint8)


def paste(frames: Frames, patch: Frames, place: NDArray[np.int64]) -> None:
    """Put a patch into frames, its left upper corner at (x, y)."""
    x, y = (int(v) for v in place)
    frames[:, y : y + len(patch), x : x + len(patch)] = patch


def disc(frame: Frames, centre: NDArray[np.int64], radius: int, colour: NDArray[np.float64]) -> None:
    """A disc with a dark cross in it, whose way can be followed."""
    x, y = (int(v) for v in centre)
    cv2.circle(frame, (x, y), radius, [int(v) for v in colour], -1, cv2.LINE_AA)
    cv2.line(frame, (x - 6, y), (x + 6, y), (20, 20, 20), 2)
    cv2.line(frame, (x, y - 6), (x, y + 6), (20, 20, 20), 2)
