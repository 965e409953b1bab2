"""The frames of an annotated video: a board that stays, and what changes on it from frame to frame, drawn by OpenCV."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.video.display import resize

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first that are not in it."""
Colour = tuple[int, int, int]

VEIL = 0.80
"""How far what the model has not read yet fades into white."""
INK: Colour = (34, 34, 34)
CURSOR: Colour = (213, 94, 0)


@dataclass(frozen=True)
class Board:
    """What stays, and where the rest goes.

    Attributes:
        picture: uint8 (H, W, 3) RGB.
        frame: where the frame goes; it is fitted into it.
        strips: columns of equal width, one per moment; what lies right of the present one is veiled.
        steps: how many columns.
        bars: where a bar for each number goes, full at 1.
        colours: of the bars.
        clock: left end of the base line of the time.
    """

    picture: Picture
    frame: Box
    strips: Box
    steps: int
    bars: list[Box] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    clock: tuple[int, int] = (0, 0)


def draw_board(board: Board, frame: Picture, step: int, bars: NDArray[np.float64], clock: str) -> Picture:
    """One frame of the video.

    Args:
        board: what stays.
        frame: uint8 (h, w, 3) RGB.
        step: the moment that was read last, 0 .. steps - 1.
        bars: float64, one per bar, 0..1.
        clock: the time, in ASCII.

    Returns:
        uint8 (H, W, 3) RGB, new.
    """
    picture = board.picture.copy()
    _fit_in(picture, frame, board.frame)
    left, top, right, bottom = board.strips
    edge = left + round((step + 1) * (right - left) / board.steps)
    future = picture[top:bottom, edge:right]
    future[...] = (future * (1 - VEIL) + 255 * VEIL).astype(np.uint8)
    start = left + round(step * (right - left) / board.steps)
    cv2.rectangle(picture, (start, top - 2), (edge - 1, bottom + 1), CURSOR, 2)
    for box, colour, value in zip(board.bars, board.colours, bars, strict=True):
        _bar(picture, box, colour, float(value))
    cv2.putText(picture, clock, board.clock, cv2.FONT_HERSHEY_SIMPLEX, 0.62, INK, 1, cv2.LINE_AA)
    return picture


def _fit_in(picture: Picture, frame: Picture, box: Box) -> None:
    """As large as the box allows, in its middle, its shape kept."""
    left, top, right, bottom = box
    height, width = frame.shape[:2]
    scale = min((right - left) / width, (bottom - top) / height)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    x, y = left + (right - left - size[0]) // 2, top + (bottom - top - size[1]) // 2
    picture[y : y + size[1], x : x + size[0]] = resize(frame, *size)


def _bar(picture: Picture, box: Box, colour: Colour, value: float) -> None:
    left, top, right, bottom = box
    end = left + round((right - left) * min(max(value, 0.0), 1.0))
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), (236, 238, 241), -1)
    if end > left:
        cv2.rectangle(picture, (left, top), (end - 1, bottom - 1), colour, -1)
    place = right + 8, bottom - max(1, (bottom - top) // 5)
    cv2.putText(picture, f"{value:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
