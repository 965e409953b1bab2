"""Perceptual hashes: those of imagehash, alike for copies, none for frames that show nothing."""

from __future__ import annotations

import subprocess
import sys

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.fingerprint import BITS, CROPS, MIRRORED, fingerprint, from_bytes, to_bytes

seeds = st.integers(0, 2**31)


def picture(seed: int, side: int = 64, contrast: float = 40.0) -> NDArray[np.uint8]:
    """A random picture with the 1/f spectrum of natural ones."""
    white = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side)))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    image = np.fft.irfft2(white / frequency, s=(side, side))
    return np.clip(128 + contrast * image / image.std(), 0, 255).astype(np.uint8)


def bits(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.bitwise_count(first ^ second).sum())


@given(seeds)
def test_it_is_the_hash_of_imagehash(seed: int) -> None:
    image = picture(seed)
    expected = imagehash.phash(Image.fromarray(image), hash_size=16).hash
    ours = np.unpackbits(fingerprint(image[None])[0, 0].view(np.uint8)).reshape(16, 16).astype(bool)
    # The two sum in another order, so a coefficient that equals the median may fall on its other side.
    assert (ours != expected).sum() <= 1


@given(seeds, st.floats(0.5, 1.2), st.floats(-20, 20))
def test_brightness_contrast_and_grain_turn_few_bits(seed: int, gain: float, offset: float) -> None:
    image = picture(seed, contrast=30.0)
    grain = np.random.default_rng(seed + 1).normal(0, 2, image.shape)
    changed = np.clip(image * gain + offset + grain, 0, 255).astype(np.uint8)
    assert bits(fingerprint(image[None])[0, 0], fingerprint(changed[None])[0, 0]) <= 25


@given(seeds)
def test_mirroring_turns_known_bits(seed: int) -> None:
    image = picture(seed)
    plain, mirrored = fingerprint(np.stack([image, image[:, ::-1]]))[:, 0]
    assert bits(plain, mirrored) > 80
    assert bits(plain ^ MIRRORED, mirrored) <= 30


@given(seeds, st.sampled_from([1, 2]))
def test_the_frame_without_its_edges_is_among_the_hashes(seed: int, crop: int) -> None:
    large = picture(seed, 640)
    edge = round(640 * CROPS[crop])
    cut = large[edge:-edge, edge:-edge]
    whole, part = (cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in (large, cut))
    one, other = fingerprint(np.stack([whole, part]))
    assert bits(one[crop], other[0]) <= 16 < bits(one[0], other[0])


@given(seeds, seeds)
def test_other_pictures_differ_in_about_half_of_the_bits(one: int, other: int) -> None:
    hashes = fingerprint(np.stack([picture(one), picture(other)]))[:, 0]
    assert one == other or bits(*hashes) > 60


@pytest.mark.parametrize("level", [0, 16, 128, 255])
def test_frames_that_show_nothing_are_left_out(level: int) -> None:
    flat = np.full((3, 64, 64), level, np.uint8)
    grain = np.random.default_rng(0).integers(-12, 13, flat.shape)
    noisy = np.clip(flat + grain, 0, 255).astype(np.uint8)
    assert len(fingerprint(flat)) == 0 and len(fingerprint(noisy)) == 0
    shown = fingerprint(np.concatenate([flat, picture(1)[None], noisy]))
    assert np.array_equal(shown, fingerprint(picture(1)[None]))


def test_a_crop_that_shows_nothing_has_no_bit() -> None:
    framed = np.full((1, 64, 64), 90, np.uint8)
    framed[:, :5] = framed[:, -5:] = 250
    hashes = fingerprint(framed)
    assert len(hashes) == 1 and hashes[0, 0].any() and not hashes[0, 2].any()


@settings(max_examples=30)
@given(st.integers(0, 8), seeds)
def test_bytes_and_back(count: int, seed: int) -> None:
    pictures = [picture(seed + k) for k in range(count)]
    hashes = fingerprint(np.stack(pictures) if pictures else np.empty((0, 64, 64), np.uint8))
    assert hashes.shape == (count, len(CROPS), BITS // 64) and hashes.dtype == np.uint64
    assert np.array_equal(from_bytes(to_bytes(hashes)), hashes) and len(to_bytes(hashes)) == 96 * count


def test_what_is_no_fingerprint_is_refused() -> None:
    with pytest.raises(ValueError):
        from_bytes(b"\0\1look")
    for wrong in (np.zeros((2, 32, 32), np.uint8), np.zeros((64, 64), np.uint8), np.zeros((2, 64, 64))):
        with pytest.raises(ValueError, match="thumbnails must be uint8"):
            fingerprint(wrong)


def test_decoding_workers_load_nothing_heavy_for_it() -> None:
    code = "import sys, pipeline.data.fingerprint; print([m for m in ('torch', 'pandas', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
