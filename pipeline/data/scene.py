"""What the demo clips show: one object that moves over a photograph.

A single frame says nothing about the class, by construction: in every class the object's centre is uniform on a disc
(an orbit keeps it so, and what moves straight along a chord goes on at the chord's start), its size has one and the
same distribution, its orientation is uniform. Only the order of the frames tells left from right, clockwise from
counter-clockwise, growing from shrinking. Nothing is blurred by its motion, and grain covers the faint trail that a
video codec leaves where an object has been.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = ("left", "right", "up", "down", "clockwise", "counter_clockwise", "grow", "shrink")
SHAPES = ("disc", "square", "triangle", "star", "ring", "cross", "hexagon", "drop")
TEXTURES = ("plain", "stripes", "checks", "dots", "halves")
REACH = 0.42
"""Radius of the disc that the object's centre stays in, in frame widths and heights (an ellipse in pixels)."""
DIAMETER = (0.18, 0.72)
"""Smallest and largest diameter of the object in parts of the frame's shorter side."""
GRAIN = 4
"""Grey levels by which the grain of a frame differs from 0 at most. It hides the codec's trail, a fraction of
a grey level: against the mean of its group's frames, single frames of MPEG-4 clips were told apart in 20% of
cases without grain (chance: 12.5%), in 13.5% with 4, in 12.3% with 10."""


@dataclass(frozen=True)
class Motion:
    """How fast a clip's motion is, whatever its class.

    Attributes:
        travel: how far the whole clip goes: frame widths (left, right), heights (up, down).
        turns: of the orbit around the middle of the frame.
        growth: natural logarithm of the ratio of sizes over the whole clip.
    """

    travel: float
    turns: float
    growth: float


@dataclass(frozen=True)
class Look:
    """What the object looks like: a shape, two colours (RGB, 0 to 255) in a texture, and an outline."""

    shape: str
    texture: str
    colours: np.ndarray
    outline: np.ndarray


def trajectory(
    label: str, moments: np.ndarray, motion: Motion, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Where the object is and how large.

    Args:
        label: one of `CLASSES`.
        moments: float64 (T,) parts of the clip, 0 to 1.
        motion: how much of it there is.
        size: width and height of the frame in pixels.
        rng: draws where, how large and how turned it starts.

    Returns:
        float64 (T, 4): x, y and diameter in pixels (x in [0, width), y in [0, height)), orientation in
        radians.
    """
    width, height = size
    span = np.log(DIAMETER[1] / DIAMETER[0])
    grown = motion.growth / span
    # a point of the disc, uniformly: radius from the square root
    r, angle = REACH * np.sqrt(rng.random()), 2 * np.pi * rng.random()
    x, y = np.full(len(moments), r * np.cos(angle)), np.full(len(moments), r * np.sin(angle))
    # grow and shrink stay inside the range; the size of the others is drawn from what those two show on average
    start = rng.random() * (1 - grown)
    scale = np.full(len(moments), start + rng.random() * grown)
    if label in ("left", "right"):
        x = _along_chord(x, y, moments * motion.travel * (1 if label == "right" else -1))
    elif label in ("up", "down"):
        y = _along_chord(y, x, moments * motion.travel * (1 if label == "down" else -1))
    elif label in ("clockwise", "counter_clockwise"):
        # The image's y points down, so a growing angle turns clockwise on the screen.
        turned = angle + 2 * np.pi * motion.turns * moments * (1 if label == "clockwise" else -1)
        x, y = r * np.cos(turned), r * np.sin(turned)
    elif label in ("grow", "shrink"):
        scale = start + grown * (moments if label == "grow" else 1 - moments)
    else:
        raise ValueError(f"no motion is called '{label}'; choose one of {', '.join(CLASSES)}")
    diameter = min(size) * DIAMETER[0] * np.exp(span * scale)
    orientation = np.full(len(moments), 2 * np.pi * rng.random())
    return np.stack([(x + 0.5) * width, (y + 0.5) * height, diameter, orientation], axis=1)


def _along_chord(along: np.ndarray, across: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Move along a chord of the disc; what reaches its end goes on at its start."""
    half = np.sqrt(REACH**2 - across**2)
    return (along + step + half) % (2 * half) - half


def render(background: np.ndarray, path: np.ndarray, look: Look) -> np.ndarray:
    """Draw the object over a background, wrapping around the borders.

    Args:
        background: uint8 (H, W, 3) RGB.
        path: float64 (T, 4) of `trajectory`.
        look: the object.

    Returns:
        uint8 (T, H, W, 3) RGB.
    """
    height, width = background.shape[:2]
    frames = np.repeat(background[None], len(path), axis=0)
    for frame, (x, y, diameter, orientation) in zip(frames, path, strict=True):
        reach = int(np.ceil(diameter / 2)) + 2
        columns = np.arange(int(x) - reach, int(x) + reach + 1)
        rows = np.arange(int(y) - reach, int(y) + reach + 1)
        cos, sin = np.cos(orientation), np.sin(orientation)
        u = (columns - x)[None, :] * cos + (rows - y)[:, None] * sin
        v = -(columns - x)[None, :] * sin + (rows - y)[:, None] * cos
        radius = diameter / 2
        inside = radius * _depth(look.shape, u / radius, v / radius)
        where = np.ix_(rows % height, columns % width)
        frame[where] = _paint(frame[where], inside, u / radius, v / radius, look, max(1.2, 0.09 * diameter))
    return frames


def _paint(
    under: np.ndarray, inside: np.ndarray, u: np.ndarray, v: np.ndarray, look: Look, border: float
) -> np.ndarray:
    """Colours of a patch; `inside` is the distance to the edge in pixels, positive inside the object."""
    second = _texture(look.texture, u, v)[..., None]
    fill = look.colours[0] * (1 - second) + look.colours[1] * second
    core = np.clip(inside - border + 0.5, 0, 1)[..., None]
    cover = np.clip(inside + 0.5, 0, 1)[..., None]
    shown = fill * core + look.outline * (1 - core)
    return np.rint(shown * cover + under * (1 - cover)).astype(np.uint8)


def _depth(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the edge of a shape in the unit circle, positive inside; approximate at corners."""
    r = np.hypot(u, v)
    if shape == "disc":
        return 1 - r
    if shape == "ring":
        return 0.31 - np.abs(r - 0.69)
    if shape == "square":
        return 0.8 - np.maximum(np.abs(u), np.abs(v))
    if shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return np.maximum(np.minimum(0.93 - a, 0.36 - b), np.minimum(0.36 - a, 0.93 - b))
    if shape == "drop":
        # A disc and a smaller one beside it: a shape that shows which way it lies.
        return np.maximum(0.62 - np.hypot(u + 0.36, v), 0.36 - np.hypot(u - 0.62, v))
    sides = {"triangle": 3, "hexagon": 6, "star": 5}[shape]
    sector = 2 * np.pi / sides
    angle = np.mod(np.arctan2(v, u) + sector / 2, sector) - sector / 2
    if shape == "star":
        # The edge runs from a tip at radius 1 to a notch at radius 0.45, half a sector further on.
        notch = 0.45 * np.array([np.cos(sector / 2), np.sin(sector / 2)])
        normal = np.array([notch[1], 1 - notch[0]]) / np.hypot(notch[1], 1 - notch[0])
        a = np.abs(angle)
        return normal[0] - (r * np.cos(a) * normal[0] + r * np.sin(a) * normal[1])
    flat = np.cos(np.pi / sides)
    return flat - r * np.cos(np.mod(angle, sector) - sector / 2)


def _texture(texture: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Share of the second colour, 0 to 1, at each point."""
    if texture == "stripes":
        return (np.sin(7.5 * u) > 0).astype(np.float64)
    if texture == "checks":
        return (np.sin(6.0 * u) * np.sin(6.0 * v) > 0).astype(np.float64)
    if texture == "dots":
        return (np.cos(9.0 * u) + np.cos(9.0 * v) > 0.9).astype(np.float64)
    if texture == "halves":
        return (v > 0).astype(np.float64)
    return np.zeros_like(u)


def add_grain(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sensor noise, new in every frame: uint8 (T, H, W, 3) in and out."""
    count, height, width = frames.shape[:3]
    # Each frame sees another part of one larger sheet: drawing fresh noise would take longer than all the
    # rest.
    sheet = rng.integers(-GRAIN, GRAIN + 1, size=(height + 64, width + 64, 3), dtype=np.int16)
    grainy = np.empty_like(frames)
    for frame, out, (y, x) in zip(frames, grainy, rng.integers(0, 65, size=(count, 2)), strict=True):
        out[...] = np.clip(frame + sheet[y : y + height, x : x + width], 0, 255)
    return grainy
