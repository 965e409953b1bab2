"""Files of several images: animated GIF, PNG and WebP, TIFF with several pages.

Pillow composes them, page by page: whole pictures, with the durations of the file. FFmpeg gives GIFs on white
and no animated WebP; OpenCV's `imdecodeanimation` gives the same pictures but holds them all in memory.
"""

from __future__ import annotations

import io
import math
import warnings

import cv2
import numpy as np
from PIL import Image

from pipeline.errors import Reason, VideoError
from pipeline.video.display import too_large
from pipeline.video.images import IMAGE_FOLDER_FPS, read_bytes, suffix

ALWAYS = frozenset({".gif", ".apng"})
"""Suffixes that are read here, whatever the number of images."""

PERHAPS = frozenset({".png", ".webp", ".tif", ".tiff"})
"""Suffixes that are read here where they hold several images."""

NO_DELAY = 0.1
"""Seconds that an image without a duration is shown, as in browsers and FFmpeg."""

_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, IndexError)


class Animation:
    """A source whose first picture is decoded; see `capture.Capture`."""

    marks: tuple[str, ...] = ()
    seekable = False
    repaired = 0

    def __init__(self, path: str, data: bytes, image: Image.Image, megapixels: float = math.inf) -> None:
        """Raises: VideoError: NOT_A_VIDEO, TOO_LARGE or NO_FRAME_DECODED."""
        self._data, self._image = np.frombuffer(data, np.uint8), image
        width, height = image.size
        if width * height > megapixels * 1e6:
            raise too_large(path, width, height, megapixels)
        self.codec = {"PNG": "apng"}.get(image.format or "", (image.format or "").lower())
        # A PNG may show programs without animation another image, which is no part of it.
        self._page = 1 if image.info.get("default_image") else 0
        self._last = int(getattr(image, "n_frames", 1)) - 1
        self.claimed = self._last + 1 - self._page
        self.time, self._broken = 0.0, False
        try:
            self._picture = self._decode()
        except _DAMAGE as error:
            raise VideoError(path, Reason.NO_FRAME_DECODED, "the image is damaged") from error

    def _decode(self) -> np.ndarray:
        if self.codec == "tiff":
            # OpenCV scales 16-bit pages to 8 bits; Pillow cuts them off.
            ok, pages = cv2.imdecodemulti(self._data, cv2.IMREAD_COLOR, range=(self._page, self._page + 1))
            if not ok or not pages:
                raise ValueError("the page does not decode")
            return pages[0]
        self._image.seek(self._page)
        whole = np.asarray(self._image.convert("RGBA"))
        colour, alpha = whole[..., 2::-1], whole[..., 3:].astype(np.uint16)
        # What is transparent lies on black.
        return ((colour * alpha + 127) // 255).astype(np.uint8)

    def _duration(self) -> float:
        if self.codec == "tiff":
            return 1 / IMAGE_FOLDER_FPS
        return float(self._image.info.get("duration") or 0) / 1000 or NO_DELAY

    def advance(self) -> bool:
        """Compose the next image; False at the end, or where it is damaged."""
        if self._page >= self._last:
            return False
        after = self.time + self._duration()
        self._page += 1
        try:
            self._picture = self._decode()
        except _DAMAGE:
            self._broken = True
            return False
        self.time = after
        return True

    def picture(self) -> np.ndarray:
        """The current image, BGR uint8 (H, W, 3)."""
        return self._picture

    def goes_on(self) -> bool:
        """Whether it was damage that ended the reading."""
        return self._broken

    def seek(self, time: float) -> bool:
        """Not offered: each image is painted over the one before."""
        return False


def open_animation(path: str, megapixels: float = math.inf) -> Animation | None:
    """An animation at its first image; None where a file is none, or not one that Pillow knows.

    Raises:
        VideoError: the file cannot be read, is too large, or gives no image.
    """
    ending = suffix(path)
    if ending not in ALWAYS | PERHAPS:
        return None
    data = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            several = int(getattr(image, "n_frames", 1)) > 1
    except Image.DecompressionBombError as error:
        raise VideoError(path, Reason.TOO_LARGE, "beyond what Pillow opens") from error
    except _DAMAGE:
        return None
    return Animation(path, data, image, megapixels) if several or image.format == "GIF" else None
