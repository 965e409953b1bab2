"""From decoded frames to square frames of one size, by albumentations, which only this file and `corruptions` know.

Frames that are only fitted, as all but training's are, go through OpenCV alone, to the bits that albumentations gives:
importing it takes as long as classifying dozens of clips.

One draw of random numbers per clip, the same for each of its frames. The draw is a function of a seed alone, so it
does not depend on which worker makes it (an albumentations pipeline that is merely copied into workers draws the same
numbers in each of them).
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import AugmentationConfig

if TYPE_CHECKING:
    import albumentations as A

Fit = Literal["stretch", "crop", "pad"]
Key = tuple[float, float, float, float, float]


def transform_clip(
    frames: NDArray[np.uint8],
    size: int,
    fit: Fit,
    augmentation: AugmentationConfig | None = None,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Fit a clip's frames into squares, randomly changed where `augmentation` is given.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        size: height and width of the result in pixels.
        fit: how a frame becomes square, see `VideoConfig.fit`.
        augmentation: what to vary; None for evaluation.
        seed: decides the draw. The same seed gives the same crop, mirror and rotation at every `size`.

    Returns:
        uint8 (T, size, size, 3), RGB.
    """
    if augmentation is None:
        return np.stack([fitted(frame, size, fit) for frame in frames])
    pipeline_ = _compose(size, fit, _interpolation(frames[0], size), _key(augmentation))
    pipeline_.set_random_seed(seed)
    return np.asarray(pipeline_(images=frames)["images"], dtype=np.uint8)


def fitted(frame: NDArray[np.uint8], size: int, fit: Fit) -> NDArray[np.uint8]:
    """One frame uint8 (H, W, 3) as (size, size, 3), nothing varied: what `_fit_steps` does."""
    height, width = frame.shape[:2]
    interpolation = _interpolation(frame, size)
    if fit == "stretch":
        return _resized(frame, size, size, interpolation)
    scale = size / (min(height, width) if fit == "crop" else max(height, width))
    frame = _resized(frame, max(1, round(height * scale)), max(1, round(width * scale)), interpolation)
    height, width = frame.shape[:2]
    if fit == "crop":
        top, left = (height - size) // 2, (width - size) // 2
        return frame[top : top + size, left : left + size]
    top, left = (size - height) // 2, (size - width) // 2
    borders = top, size - height - top, left, size - width - left
    return np.asarray(cv2.copyMakeBorder(frame, *borders, cv2.BORDER_CONSTANT, value=(0, 0, 0)), np.uint8)


def _resized(frame: NDArray[np.uint8], height: int, width: int, interpolation: int) -> NDArray[np.uint8]:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(cv2.resize(frame, (width, height), interpolation=interpolation), np.uint8)


def _interpolation(frame: NDArray[np.uint8], size: int) -> int:
    return cv2.INTER_AREA if min(frame.shape[:2]) >= size else cv2.INTER_LINEAR


def _key(augmentation: AugmentationConfig) -> Key:
    a = augmentation
    return (a.crop, a.flip, a.rotate, a.brightness, a.saturation)


@lru_cache(maxsize=64)
def _compose(size: int, fit: Fit, interpolation: int, key: Key) -> A.Compose:
    import albumentations as A

    with warnings.catch_warnings():
        # albumentations only warns of an argument it does not know, and then ignores it
        warnings.simplefilter("error", UserWarning)
        # what is random in place comes before what is random in colour: the draws of the former are then the same
        # whether or not the latter follows
        steps = [*_crop_steps(key[0]), *_fit_steps(size, fit, interpolation), *_geometry_steps(key)]
        return A.Compose([*steps, *_colour_steps(key)])


def _fit_steps(size: int, fit: Fit, interpolation: int) -> list[A.BasicTransform]:
    import albumentations as A

    if fit == "stretch":
        return [A.Resize(size, size, interpolation=interpolation)]
    if fit == "crop":
        return [A.SmallestMaxSize(max_size=size, interpolation=interpolation), A.CenterCrop(size, size)]
    return [A.LongestMaxSize(max_size=size, interpolation=interpolation), A.PadIfNeeded(size, size)]


def _crop_steps(area: float) -> list[A.BasicTransform]:
    """Cut up to the same share from each border, so that the crop keeps about the frame's own shape."""
    import albumentations as A

    if area >= 1:
        return []
    border = (1 - area**0.5) / 2
    return [A.RandomCropFromBorders(crop_left=border, crop_right=border, crop_top=border, crop_bottom=border, p=1)]


def _geometry_steps(key: Key) -> list[A.BasicTransform]:
    import albumentations as A

    _, flip, rotate, _, _ = key
    steps: list[A.BasicTransform] = []
    if flip > 0:
        steps.append(A.HorizontalFlip(p=flip))
    if rotate > 0:
        steps.append(A.Rotate(limit=(-rotate, rotate), border_mode=cv2.BORDER_REFLECT_101, p=1))
    return steps


def _colour_steps(key: Key) -> list[A.BasicTransform]:
    import albumentations as A

    _, _, _, brightness, saturation = key
    if brightness == 0 and saturation == 0:
        return []
    return [
        A.ColorJitter(
            brightness=(max(0.0, 1 - brightness), 1 + brightness),
            contrast=(max(0.0, 1 - brightness), 1 + brightness),
            saturation=(max(0.0, 1 - saturation), 1 + saturation),
            hue=(0, 0),
            p=1,
        )
    ]
