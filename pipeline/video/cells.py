"""Means over the cells of a coarse grid: an image's worth of numbers as few."""

from __future__ import annotations

import numpy as np


def cell_means(fields: np.ndarray, grid: int) -> np.ndarray:
    """Mean of each channel in each of grid x grid cells.

    Args:
        fields: float32 (T, H, W, C).
        grid: cells per side, at most H and W.

    Returns:
        float32 (T, C * grid * grid), laid out as (T, C, grid, grid). Where the sides do not divide evenly, neighbouring
        cells differ by one pixel in size and every pixel is in exactly one cell.

    Raises:
        ValueError: more cells than pixels.
    """
    count, height, width, channels = fields.shape
    if not 1 <= grid <= min(height, width):
        raise ValueError(f"{width} x {height} pixels have no {grid} x {grid} cells")
    rows = np.arange(grid + 1) * height // grid
    columns = np.arange(grid + 1) * width // grid
    sums = np.add.reduceat(np.add.reduceat(fields.astype(np.float64), rows[:-1], axis=1), columns[:-1], axis=2)
    cells = sums / (np.diff(rows)[:, None] * np.diff(columns))[None, :, :, None]
    return cells.transpose(0, 3, 1, 2).reshape(count, channels * grid * grid).astype(np.float32)
