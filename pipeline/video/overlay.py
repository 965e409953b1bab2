"""A frame as a person looks at it: large enough, with the answer written on it; and as a JPEG."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST = 320
"""Width in pixels that a smaller frame is enlarged to, so that a label has room."""

STRIP, INK, BAR, REST = (24, 28, 36), (240, 243, 248), (88, 166, 255), (70, 78, 92)


def annotated(frame: np.ndarray, label: str, share: float | None) -> np.ndarray:
    """A copy with a strip below it: the label, and how sure it is as a number and a bar.

    Args:
        frame: uint8 (H, W, 3) RGB.
        label: in any script that DejaVu Sans has.
        share: 0..1; None draws no bar.

    Returns:
        uint8 RGB with even sides, at least `SMALLEST` wide.
    """
    height, width = frame.shape[:2]
    if width < SMALLEST:
        height, width = round(height * SMALLEST / width), SMALLEST
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST)
    width -= width % 2
    size = min(max(width // 24, 14), 36)
    strip = 2 * size + 2 * (size // 4)
    canvas = np.empty(((height + strip) // 2 * 2, width, 3), dtype=np.uint8)
    canvas[:] = STRIP
    canvas[:height] = frame[:, :width]
    number = "" if share is None else f"{share:.0%}"
    right = width - size // 2 - _mask(number, size).shape[1] if number else width
    _write(canvas[:, : right - size // 2], label, size // 2, height + size // 4, size)
    if share is not None:
        _write(canvas, number, right, height + size // 4, size)
        top, left, full = height + strip - size // 2, size // 2, width - size
        canvas[top : top + size // 4, left : left + full] = REST
        canvas[top : top + size // 4, left : left + round(full * min(max(share, 0.0), 1.0))] = BAR
    return canvas


def jpeg(frame: np.ndarray, width: int = 960) -> bytes:
    """A frame, uint8 (H, W, 3) RGB, as a JPEG that is at most so wide."""
    if frame.shape[1] > width:
        size = (width, max(1, round(frame.shape[0] * width / frame.shape[1])))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return encoded.tobytes()


def _write(canvas: np.ndarray, text: str, left: int, top: int, size: int) -> None:
    mask = _mask(text, size)
    place = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    opacity = mask[: place.shape[0], : place.shape[1], None] / np.float32(255)
    place[:] = np.rint(place + (np.array(INK) - place) * opacity).astype(np.uint8)


@lru_cache(maxsize=512)
def _mask(text: str, size: int) -> np.ndarray:
    """uint8 (h, w), how much of each pixel the text covers."""
    font = _font(size)
    image = Image.new("L", (max(1, round(font.getlength(text)) + 1), round(size * 1.25)))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    return np.asarray(image)


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # whose wheel brings the font along

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)
