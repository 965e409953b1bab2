"""Still images and folders of images as sources of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Lower-case suffixes of files that are read as one still image."""

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4 .m4v .mov .qt .avi .mkv .webm .mpg .mpeg .m2v .ts .mts .m2ts .vob .wmv .asf .flv .f4v .3gp .3g2"
        " .ogv .ivf .h264 .264 .hevc .h265 .265 .mjpeg .mjpg .mxf .gif"
    ).split()
)
"""Lower-case suffixes that a folder is searched for; a file named directly may have any suffix."""

IMAGE_FOLDER_FPS = 25.0
"""Frames per second a folder of images is taken to have: images carry no time of their own."""


def suffix(path: str) -> str:
    """The lower-case suffix of a path, with its dot."""
    return os.path.splitext(path)[1].lower()


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


def decode_image(path: str) -> np.ndarray:
    """One image as uint8 (H, W, 3) RGB; grey, palette, alpha and 16-bit images are converted, EXIF turns
    applied.

    The bytes are read in Python because `cv2.imread` cannot open every name on every system.

    Raises:
        VideoError: NOT_FOUND, NOT_READABLE, EMPTY, or NOT_A_VIDEO where the bytes are no image.
    """
    try:
        with open(path, "rb") as file:
            data = np.frombuffer(file.read(), dtype=np.uint8)
    except FileNotFoundError as error:
        raise VideoError(path, Reason.NOT_FOUND) from error
    except OSError as error:
        raise VideoError(path, Reason.NOT_READABLE, error.strerror or "") from error
    if data.size == 0:
        raise VideoError(path, Reason.EMPTY)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise VideoError(path, Reason.NOT_A_VIDEO, "the image does not decode") from error
    if image is None:
        raise VideoError(path, Reason.NOT_A_VIDEO, "the image does not decode")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """A frame (H, W, 3) at another size; unchanged, not copied, where the size already fits."""
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = frame.shape[0] >= height and frame.shape[1] >= width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


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


def decode_in_folder(folder: str, image: str) -> np.ndarray:
    """`decode_image` for one image of a folder; an error names the folder, which is the clip, and the image.

    A damaged image is an error and not a gap: dropping it would shift the time of every later frame.
    """
    try:
        return decode_image(image)
    except VideoError as error:
        raise VideoError(folder, Reason.NOT_READABLE, f"{os.path.basename(image)}: {error.reason}") from error


def read_images(folder: str, indices: Sequence[int]) -> list[np.ndarray]:
    """The wanted images of a folder, each at the size of the folder's first image.

    Raises:
        VideoError: as `folder_images` and `decode_in_folder`; NO_FRAME_DECODED where the folder has become
            shorter.
    """
    images = folder_images(folder)
    if indices[-1] >= len(images):
        detail = f"ended after {len(images)} frames; the file changed?"
        raise VideoError(folder, Reason.NO_FRAME_DECODED, detail)
    height, width = decode_in_folder(folder, images[0]).shape[:2]
    return [resize(decode_in_folder(folder, images[index]), width, height) for index in indices]
