"""Heat maps over the frames that a model saw, arrays in and out."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.video.display import resize

Frames = NDArray[np.uint8]
Heat = NDArray[np.float32]
Fit = Literal["stretch", "crop", "pad"]

STRENGTH = 0.62
"""Share of the colour where the heat is greatest; the frame stays visible below it."""


def shrink(frames: Frames, side: int) -> Frames:
    """Frames (T, H, W, 3) whose longer side has at most `side` pixels; as they are where they are small."""
    height, width = frames.shape[1:3]
    if max(height, width) <= side:
        return frames
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([resize(frame, *size) for frame in frames])


def on_frame(heat: Heat, width: int, height: int, fit: Fit) -> Heat:
    """A heat map of what the model saw, laid over the frame that it was cut from.

    Args:
        heat: float32 (h, w) in 0..1, over the model's square view.
        width, height: of the frame in pixels.
        fit: how the frame became the square, see `VideoConfig.fit`.

    Returns:
        float32 (height, width) in 0..1; 0 where the model could not see.
    """
    if fit == "stretch":
        return _smooth(heat, width, height)
    side = min(width, height) if fit == "crop" else max(width, height)
    square = _smooth(heat, side, side)
    left, top = (width - side) // 2, (height - side) // 2
    if fit == "pad":
        return square[-top : height - top, -left : width - left]
    whole = np.zeros((height, width), dtype=np.float32)
    whole[top : top + side, left : left + side] = square
    return whole


def blend(frame: Frames, heat: Heat) -> Frames:
    """A frame (H, W, 3) RGB under a heat map (H, W) in 0..1: the hotter, the more of the colour."""
    levels = np.rint(heat * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = (STRENGTH * np.sqrt(heat))[..., None]
    return np.rint(frame * (1 - share) + colours * share).astype(np.uint8)


def heated(frame: Frames, heat: Heat, fit: Fit) -> Frames:
    """`blend` of a frame (H, W, 3) and a heat map (h, w) over the model's view of it."""
    return blend(frame, on_frame(heat, frame.shape[1], frame.shape[0], fit))


def _smooth(heat: Heat, width: int, height: int) -> Heat:
    """Cubic, whose overshoots are cut: the hottest place stays the middle of the hottest cell."""
    return np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
