"""What a clip looks like, in a few hundred bytes: perceptual hashes of its frames, alike for copies of a clip.

The hash is pHash (DCT, 256 bits) as `imagehash.phash(image, hash_size=16)` gives it, bit for bit; a test compares
them. It is computed here for all frames at once, because one call per hash costs a fifth of decoding a small clip.
The frame is hashed whole and without 5 % and 10 % of each side, so that a cropped copy meets an equal hash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "CROPS", "MIRRORED", "fingerprint", "from_bytes", "to_bytes"]

SIDE, SIZE = 64, 16
"""Pixels of a thumbnail's side; frequencies per direction that are hashed."""
BITS = SIZE * SIZE
CROPS = (0.0, 0.05, 0.1)
"""Parts of the frame's width and height left out at each side: one hash for each."""
CONTRAST = 4.0
"""Grey levels of standard deviation, after smoothing, below which a frame shows nothing: black frames, one colour,
grain. What the hash of such a frame says is the codec's noise."""

FREQUENCIES = np.arange(SIZE)


def _resampling(crop: float) -> NDArray[np.float64]:
    """(64, 64): takes a line of pixels without `crop` of it at each end back to 64 pixels, linearly."""
    matrix = np.zeros((SIDE, SIDE))
    pixels = np.arange(SIDE)
    position = np.clip((pixels + 0.5) * (1 - 2 * crop) + SIDE * crop - 0.5, 0, SIDE - 1)
    left = np.floor(position).astype(np.int64)
    share = position - left
    matrix[pixels, left] = 1 - share
    matrix[pixels, np.minimum(left + 1, SIDE - 1)] += share
    return matrix


_DCT = np.cos(np.pi * np.outer(FREQUENCIES, 2 * np.arange(SIDE) + 1) / (2 * SIDE))
# Cropping, resizing and the DCT are linear: one matrix (48, 64) from pixels to the frequencies of all three crops.
_TRANSFORM = np.concatenate([_DCT @ _resampling(crop) for crop in CROPS])
# What a coefficient adds to a frame's variance; the mean adds nothing.
_WEIGHTS = np.outer(np.where(FREQUENCIES > 0, 2.0, 1.0), np.where(FREQUENCIES > 0, 2.0, 1.0)) / SIDE**4
_WEIGHTS[0, 0] = 0.0

MIRRORED = np.packbits(np.tile(FREQUENCIES % 2 == 1, SIZE)).view(np.uint64)
"""uint64 (4,): the bits that mirroring a frame from left to right turns over, those of odd horizontal frequencies.
Those of coefficients between 0 and the median stay: 6 of 256 in the median over frames of real clips, 26 in one of a
hundred."""


def fingerprint(thumbnails: np.ndarray) -> NDArray[np.uint64]:
    """Hashes of a clip's thumbnails, in their order.

    Args:
        thumbnails: uint8 (K, 64, 64) grey, as `probe` takes them; K may be 0.

    Returns:
        uint64 (N, 3, 4): N <= K frames that show something, the whole frame and its two crops, 256 bits each.
        A crop that shows nothing has no bit set.

    Raises:
        ValueError: another shape or dtype.
    """
    if thumbnails.dtype != np.uint8 or thumbnails.ndim != 3 or thumbnails.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"thumbnails must be uint8 (K, 64, 64), not {thumbnails.dtype} {thumbnails.shape}")
    # Horizontally for all crops in one product, then vertically crop by crop.
    rows = (thumbnails.reshape(-1, SIDE).astype(np.float64) @ _TRANSFORM.T).reshape(-1, SIDE, len(CROPS), SIZE)
    vertical = _TRANSFORM.reshape(len(CROPS), SIZE, SIDE)
    hashes = np.stack([_hash(vertical[crop] @ rows[:, :, crop]) for crop in range(len(CROPS))], axis=1)
    return hashes[hashes[:, 0].any(axis=1)]


def _hash(coefficients: NDArray[np.float64]) -> NDArray[np.uint64]:
    """uint64 (K, 4) of coefficients (K, 16, 16): which are above their median; 0 where there is no contrast."""
    flat = coefficients.reshape(-1, BITS)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    bits &= ((flat**2) @ _WEIGHTS.reshape(BITS, 1)) >= CONTRAST**2
    return np.packbits(bits, axis=1).view(np.uint64)


def to_bytes(hashes: NDArray[np.uint64]) -> bytes:
    """A fingerprint as bytes, 96 per frame, the same on every machine."""
    return np.ascontiguousarray(hashes).tobytes()  # packed bit by bit: the order of bytes is packbits', not the CPU's


def from_bytes(stored: bytes) -> NDArray[np.uint64]:
    """The fingerprint that `to_bytes` wrote.

    Raises:
        ValueError: it is not one: the length is no multiple of 96.
    """
    return np.frombuffer(stored, dtype=np.uint64).reshape(-1, len(CROPS), BITS // 64)
