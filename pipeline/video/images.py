"""Still images and folders of images as sources of frames."""

from __future__ import annotations

import io
import math
import os
import re
import warnings

import cv2
import numpy as np
from PIL import Image

from pipeline.errors import Reason, VideoError
from pipeline.video.display import too_large

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Lower-case suffixes of files that are read as images; some may hold several, see `animation`."""

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4 .m4v .mov .qt .avi .mkv .webm .mpg .mpeg .m2v .ts .mts .m2ts .vob .wmv .asf .flv .f4v .3gp .3g2"
        " .ogv .ivf .h264 .264 .hevc .h265 .265 .mjpeg .mjpg .mxf .gif .apng"
    ).split()
)
"""Lower-case suffixes that a folder is searched for; a file named directly may have any suffix."""

_STARTS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"II*\0": ".tif", b"MM\0*": ".tif"}

IMAGE_FOLDER_FPS = 25.0
"""Frames per second a folder of images is taken to have: images carry no time of their own."""


def suffix(path: str) -> str:
    """The lower-case suffix of a path, with its dot."""
    return os.path.splitext(path)[1].lower()


def sniffed_suffix(head: bytes) -> str:
    """The suffix of the kind of image that a file of unknown name begins like, in 16 bytes; empty: of no image."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return ".bmp"
    return next((suffix for start, suffix in _STARTS.items() if head.startswith(start)), "")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key under which frame2 comes before frame10; the name itself decides ties such as 1 and 01."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def image_names(folder: str) -> list[str]:
    """Names of the visible image files of a folder, in natural order."""
    names = [e.name for e in os.scandir(folder) if not e.name.startswith(".") and e.is_file()]
    return sorted((name for name in names if suffix(name) in IMAGE_SUFFIXES), key=natural_key)


def is_image_folder(path: str) -> bool:
    """Whether a folder is one clip: it holds images, no video, no visible subfolder (other files may be)."""
    if not os.path.isdir(path):
        return False
    visible = [entry for entry in os.scandir(path) if not entry.name.startswith(".")]
    if any(entry.is_dir() or suffix(entry.name) in VIDEO_SUFFIXES for entry in visible):
        return False
    return any(suffix(entry.name) in IMAGE_SUFFIXES for entry in visible)


def read_bytes(path: str) -> bytes:
    """A whole file.

    Raises:
        VideoError: NOT_FOUND, NOT_READABLE or EMPTY.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise VideoError(path, Reason.NOT_FOUND) from error
    except OSError as error:
        raise VideoError(path, Reason.NOT_READABLE, error.strerror or "") from error
    if not data:
        raise VideoError(path, Reason.EMPTY)
    return data


def check_size(path: str, data: bytes, megapixels: float) -> None:
    """Refuse an image by its header, before it is decoded; what Pillow does not know is left to OpenCV.

    Raises:
        VideoError: TOO_LARGE.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise VideoError(path, Reason.TOO_LARGE, "beyond what Pillow opens") from error
    except (OSError, ValueError, SyntaxError):
        return
    if width * height > megapixels * 1e6:
        raise too_large(path, width, height, megapixels)


def decode_image(path: str, megapixels: float = math.inf) -> np.ndarray:
    """One image as uint8 (H, W, 3) BGR; grey, palette, alpha and 16-bit images are converted, EXIF turns
    applied.

    The bytes are read in Python because `cv2.imread` cannot open every name on every system.

    Raises:
        VideoError: as `read_bytes` and `check_size`, or NOT_A_VIDEO where the bytes are no image.
    """
    data = read_bytes(path)
    if math.isfinite(megapixels):
        check_size(path, data, megapixels)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise VideoError(path, Reason.NOT_A_VIDEO, "the image does not decode") from error
    if image is None:
        raise VideoError(path, Reason.NOT_A_VIDEO, "the image does not decode")
    return image


def folder_images(folder: str) -> list[str]:
    """Paths of a folder's images in natural order.

    Raises:
        VideoError: NOT_READABLE where the folder cannot be listed, NOT_A_VIDEO where it holds no image.
    """
    try:
        names = image_names(folder)
    except OSError as error:
        raise VideoError(folder, Reason.NOT_READABLE, error.strerror or "") from error
    if not names:
        raise VideoError(folder, Reason.NOT_A_VIDEO, "a folder without images")
    return [os.path.join(folder, name) for name in names]


class Images:
    """The images of a folder, or one image: a source whose first picture is decoded; see `capture.Capture`.

    A damaged image in a folder is an error and not a gap: dropping it would shift the time of every later one.
    """

    codec = "image"
    marks: tuple[str, ...] = ()
    seekable = True
    repaired = 0

    def __init__(self, path: str, megapixels: float = math.inf) -> None:
        """Raises: VideoError: as `folder_images` and `decode_image`; an error names the folder, and the image."""
        self._path, self._megapixels = path, megapixels
        self._images = folder_images(path) if os.path.isdir(path) else [path]
        self.claimed, self._index = len(self._images), 0
        self._picture: np.ndarray | None = self._decode()

    @property
    def time(self) -> float:
        """Seconds of the current image."""
        return self._index / IMAGE_FOLDER_FPS

    def _decode(self) -> np.ndarray:
        image = self._images[self._index]
        try:
            return decode_image(image, self._megapixels)
        except VideoError as error:
            if image == self._path:
                raise
            reason = error.reason if error.reason is Reason.TOO_LARGE else Reason.NOT_READABLE
            detail = f"{os.path.basename(image)}: {error.reason}" + (f", {error.detail}" if error.detail else "")
            raise VideoError(self._path, reason, detail) from error

    def advance(self) -> bool:
        """Go to the next image, without decoding it."""
        if self._index + 1 == len(self._images):
            return False
        self._index, self._picture = self._index + 1, None
        return True

    def picture(self) -> np.ndarray:
        """The current image, BGR uint8 (H, W, 3)."""
        if self._picture is None:
            self._picture = self._decode()
        return self._picture

    def goes_on(self) -> bool:
        """Images do not end early."""
        return False

    def seek(self, time: float) -> bool:
        """Go to the image with this time."""
        index = round(time * IMAGE_FOLDER_FPS)
        if index >= len(self._images):
            return False
        self._index, self._picture = index, None
        return True
