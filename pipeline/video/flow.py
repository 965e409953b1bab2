"""Optical flow between pairs of frames: what moved, where to and how far (DIS, Kroeger et al. 2016)."""

from __future__ import annotations

import cv2
import numpy as np

# Measured at 160 px on swipes and ut_interaction, frames two apart: warping the second frame back by the flow
# left 59% of the grey-level difference with ULTRAFAST (0.14 ms), 55% with FAST (0.27 ms), 40% with MEDIUM
# (1.5 ms): little beside a CNN, so the better flow is taken. All three give the same bits at 1, 2 and 4
# threads.
PRESET = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM

IMAGE_SCALE = 0.1
"""Displacement, in fractions of the frame, that fills the range of `flow_image`."""


def flow_fields(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Dense displacement of every pixel from one frame to the next.

    Args:
        previous, current: uint8 (T, H, W, 3) RGB, sides of at least 12 pixels; frame t of one belongs to
            frame t of the other.

    Returns:
        float32 (T, H, W, 2): x in fractions of the width (right is positive), y of the height (down is
        positive), so that the numbers mean the same at every size and frame shape.

    Raises:
        ValueError: shapes that differ or frames too small for the algorithm's patches.
    """
    if previous.shape != current.shape or previous.ndim != 4 or previous.shape[3] != 3:
        raise ValueError(f"flow needs two (T, H, W, 3) arrays of one shape, not {previous.shape}, {current.shape}")
    count, height, width = previous.shape[:3]
    if min(height, width) < 12:
        raise ValueError(f"flow needs frames of at least 12 x 12 pixels, not {width} x {height}")
    dis = cv2.DISOpticalFlow.create(PRESET)
    fields = np.empty((count, height, width, 2), dtype=np.float32)
    for before, after, field in zip(previous, current, fields, strict=True):
        grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (before, after)]
        field[...] = dis.calc(grey[0], grey[1], None)  # type: ignore[call-overload]
    fields /= np.array([width, height], dtype=np.float32)
    return fields


def flow_image(fields: np.ndarray) -> np.ndarray:
    """The flow as an image that an RGB encoder can read.

    Args:
        fields: float32 (T, H, W, 2) of `flow_fields`.

    Returns:
        uint8 (T, H, W, 3): dx and dy with 128 for stillness and +-`IMAGE_SCALE` of the frame at 255 and 1,
        and their magnitude from 0 to `IMAGE_SCALE` over 0 to 255; larger motion is clipped.
    """
    scaled = fields / np.float32(IMAGE_SCALE)
    magnitude = np.linalg.norm(scaled, axis=-1, keepdims=True) * 255
    levels = np.concatenate([128 + scaled * 127, magnitude], axis=-1)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
