"""Backgrounds and looks of the demo clips: crops of photographs that two dependencies bring along."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import numpy as np

from pipeline.data.scene import SHAPES, TEXTURES, Look
from pipeline.errors import DataError, VideoError
from pipeline.video.reader import read_frames

_PHOTOGRAPHS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
# Photograph, left edge and right edge in parts of its width. What test clips show, no other clip shows.
_REGIONS = {
    "train": (("china", 0.0, 1.0), ("flower", 0.0, 0.5)),
    "test": (("hopper", 0.0, 1.0), ("flower", 0.5, 1.0)),
}


@cache
def photographs() -> dict[str, np.ndarray]:
    """The photographs, uint8 (H, W, 3) RGB, from the installed packages; their modules are not imported.

    Raises:
        DataError: a package or its picture is not there.
    """
    images = {}
    for name, (package, path) in _PHOTOGRAPHS.items():
        spec = find_spec(package)
        folders = list(spec.submodule_search_locations or []) if spec else []
        try:
            file = os.path.join(folders[0], *path.split("/"))
            images[name] = read_frames(file, np.array([0])).frames[0]
        except (IndexError, VideoError) as error:
            raise DataError(f"{package} has no picture {path}; install {package} again with pip") from error
    return images


def background(
    images: dict[str, np.ndarray], split: str, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """A background for one group.

    Args:
        images: the `photographs`.
        split: train, val or test; test has pictures of its own, val shares those of train.
        size: width and height in pixels.
        rng: draws the crop, its colours and the noise blended into it.

    Returns:
        uint8 (H, W, 3) RGB, of moderate contrast so that the object stands out.
    """
    width, height = size
    regions = _REGIONS["test" if split == "test" else "train"]
    name, left, right = regions[int(rng.integers(len(regions)))]
    image = images[name]
    region = image[:, int(left * image.shape[1]) : int(right * image.shape[1])].astype(np.float64)
    if rng.random() < 0.5:
        region = region.transpose(1, 0, 2)
    pooled = int(rng.integers(1, 1 + max(1, min(region.shape[0] // height, region.shape[1] // width, 3))))
    rows, columns = height * pooled, width * pooled
    top = int(rng.integers(region.shape[0] - rows + 1))
    start = int(rng.integers(region.shape[1] - columns + 1))
    crop = region[top : top + rows, start : start + columns]
    crop = crop.reshape(height, pooled, width, pooled, 3).mean(axis=(1, 3))
    crop = crop[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])][..., rng.permutation(3)]
    crop = (crop - crop.mean()) / max(float(crop.std()), 1.0)
    blended = crop + rng.uniform(0.2, 0.5) * pink_noise(size, rng)
    tint = rng.uniform(-18, 18, size=3)
    return np.clip(rng.uniform(85, 165) + rng.uniform(10, 18) * blended + tint, 0, 255).astype(np.uint8)


def pink_noise(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise with the 1/f spectrum of natural images: float64 (H, W, 3), mean 0, deviation 1."""
    width, height = size
    white = np.fft.rfft2(rng.normal(size=(height, width, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(white / frequency[..., None], s=(height, width), axes=(0, 1))
    return noise / noise.std()


def look(behind: np.ndarray, rng: np.random.Generator) -> Look:
    """An object that stands out from a background: its main colour is the farthest of some random ones from
    what is nearest to it there, the outline is black or white, whichever differs more from the background.
    """
    pixels = behind.reshape(-1, 3)[:: max(1, behind.size // 900)].astype(np.float64)
    candidates = rng.uniform(0, 255, size=(24, 3))
    distance = np.linalg.norm(candidates[:, None] - pixels[None], axis=2)
    main = candidates[int(np.argmax(np.quantile(distance, 0.1, axis=1)))]
    away = np.linalg.norm(candidates - main, axis=1) + np.quantile(distance, 0.1, axis=1)
    second = candidates[int(np.argmax(away))]
    bright = behind.mean() < 127
    outline = np.full(3, 250.0 if bright else 8.0)
    shape, texture = str(rng.choice(SHAPES)), str(rng.choice(TEXTURES))
    return Look(shape, texture, np.stack([main, second]), outline)
