"""Frame differences between pairs of frames: what became brighter or darker, and where."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.video.cells import cell_means

STILL = 128
"""Level of an image of differences where nothing changed."""


def difference_image(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """The signed change as an image that an RGB encoder can read.

    Args:
        previous, current: uint8 (T, H, W, 3); frame t of one belongs to frame t of the other.

    Returns:
        uint8 (T, H, W, 3): `STILL` where a channel did not change, brighter above and darker below; changes beyond
        -128 and 127 levels, half the range, are clipped.

    Raises:
        ValueError: shapes that differ.
    """
    if previous.shape != current.shape or previous.ndim != 4:
        raise ValueError(f"a difference needs two (T, H, W, C) arrays of one shape: {previous.shape}, {current.shape}")
    change = current.astype(np.int16) - previous
    return np.clip(change + STILL, 0, 255).astype(np.uint8)


def difference_grid(previous: np.ndarray, current: np.ndarray, grid: int) -> np.ndarray:
    """How much brighter and how much darker each of grid x grid cells became.

    The two do not cancel where something dark moves over something bright, as one signed mean would: they are the on
    and off events of an event camera, added up over a cell.

    Args:
        previous, current: uint8 (T, H, W, 3) RGB.
        grid: cells per side, at most H and W.

    Returns:
        float32 (T, 2 * grid * grid) in 0..1, shares of the grey range, laid out as (T, 2, grid, grid): all of brighter,
        then all of darker.
    """
    if previous.shape != current.shape or previous.ndim != 4 or previous.shape[3] != 3:
        raise ValueError(f"a difference needs two (T, H, W, 3) arrays of one shape: {previous.shape}, {current.shape}")
    change = np.empty((*previous.shape[:3], 2), dtype=np.float32)
    for before, after, out in zip(previous, current, change, strict=True):
        grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (before, after)]
        out[..., 0], out[..., 1] = cv2.subtract(grey[1], grey[0]), cv2.subtract(grey[0], grey[1])
    return cell_means(change / np.float32(255), grid)
