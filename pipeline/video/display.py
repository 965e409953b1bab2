"""From the pixels that are stored to the picture that is shown: turned, mirrored, with square pixels."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError

Matrix = tuple[int, int, int, int]
"""(a, b, c, d): the pixel at (x, y) is shown at (a x + c y, b x + d y), shifted back into the picture."""

STRAIGHT: Matrix = (1, 0, 0, 1)


def is_mirrored(matrix: Matrix) -> bool:
    """Whether a matrix mirrors, which OpenCV ignores: it only turns."""
    a, b, c, d = matrix
    return a * d - b * c < 0


def turn(frame: np.ndarray, matrix: Matrix) -> np.ndarray:
    """A frame (H, W, 3) as its matrix shows it."""
    a, b, c, d = matrix
    if a == 0:
        frame, a, d = cv2.transpose(frame), c, b
    if a < 0 and d < 0:
        return cv2.flip(frame, -1)
    return cv2.flip(frame, 1) if a < 0 else cv2.flip(frame, 0) if d < 0 else frame


def square_size(width: int, height: int, aspect: float, turned: bool) -> tuple[int, int]:
    """Width and height with square pixels.

    Args:
        width, height: of the picture as shown.
        aspect: width of a stored pixel over its height; anything outside 0.1 to 10 is taken for an error.
        turned: whether the picture is shown turned by a quarter, so that its height stretches and not its width.
    """
    if not 0.1 <= aspect <= 10:
        return width, height
    size = (width, round(height * aspect)) if turned else (round(width * aspect), height)
    # Sizes such as 854 x 480 carry an aspect only to undo the rounding to whole pixels.
    rounding = abs(size[0] - width) <= 1 and abs(size[1] - height) <= 1
    return (width, height) if rounding or 0 in size else size


def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """A frame (H, W, 3) at another size; unchanged, not copied, where the size already fits."""
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = frame.shape[0] >= height and frame.shape[1] >= width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def too_large(path: str, width: float, height: float, megapixels: float) -> VideoError:
    """The error for frames beyond the limit."""
    detail = f"{width:.0f} x {height:.0f} pixels, the limit is {megapixels:g} million; raise limits.megapixels"
    return VideoError(path, Reason.TOO_LARGE, detail)
