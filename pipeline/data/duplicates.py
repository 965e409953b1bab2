"""Which clips are copies of one another: encoded again, resized, mirrored, trimmed, cropped, or cut from one scene.

Two clips are a pair when a quarter of the hashes of the one that has fewer lie within 46 of 256 bits of some hash of
the other; order and speed do not matter. Comparing all hashes of all clips would take n^2 time, so only clips that
share 16 bits of a hash in one of 16 places are compared (multi-index hashing).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.data.catalog import details
from pipeline.data.fingerprint import BITS, CROPS, MIRRORED, from_bytes

__all__ = ["Leak", "Pair", "find_duplicates", "look_alikes", "straddling"]

SHARE = 0.25
"""Part of the hashes of the clip with fewer of them that must have a near one in the other clip. A quarter, because
the thumbnails of a trimmed clip are taken at other moments, and few of them fall on those of the original."""
NEAR = 46
"""Bits of 256 in which near hashes differ at most. Over real clips, copies measured up to 0.18 of the bits, clips of
different scenes 0.21 and more."""
JOINS = 2_000_000
"""Comparisons of two hashes per band at most, so that time and memory stay bounded whatever the clips show."""
PARTNERS = 32
"""Clips with the nearest hashes that each clip is compared with in full; a fixed camera makes thousands alike."""

BANDS = BITS // 16
WORDS = BITS // 64
# Neighbouring frequencies go together. Bands of bits from everywhere are more evenly filled than bands of neighbours.
_ORDER = np.random.default_rng(0).permutation(BITS)


@dataclass(frozen=True)
class Pair:
    """Two clips that look alike.

    Attributes:
        first, second: positions, first < second.
        similarity: part of equal bits that a quarter of the hashes reach, 0.82 to 1.
    """

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class Leak:
    """Two clips that look alike and lie in different splits."""

    path: str
    other: str
    split: str
    other_split: str
    similarity: float


def find_duplicates(fingerprints: Sequence[np.ndarray], units: Sequence[str] | None = None) -> list[Pair]:
    """Pairs of clips that look alike.

    Args:
        fingerprints: what `fingerprint` gave for each clip, uint64 (N, 3, 4); clips with N = 0 have no pair.
        units: what each clip belongs to; clips of one unit are not compared. None: each is on its own.

    Returns:
        The pairs, by first and second position. Where many clips look alike, each has some dozens of its nearest,
        not all (see `JOINS` and `PARTNERS`).
    """
    names = [str(number) for number in range(len(fingerprints))] if units is None else list(units)
    if len(names) != len(fingerprints):
        raise ValueError(f"{len(fingerprints)} fingerprints, but {len(names)} units")
    _, codes = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    clips = [_permuted(np.asarray(hashes)) for hashes in fingerprints]
    mirror = _permuted(MIRRORED)
    pairs = []
    for first, second in _candidates(clips, codes, mirror):
        distance = _distance(clips[first], clips[second], mirror)
        if distance <= NEAR:
            pairs.append(Pair(first, second, 1.0 - distance / BITS))
    return pairs


def straddling(table: pd.DataFrame) -> list[Leak]:
    """Pairs of clips that look alike in different splits.

    Args:
        table: an assigned catalog: columns path, split, status and fingerprint (bytes of `to_bytes`; a clip with
            none, or that does not decode, is passed over).

    Returns:
        The pairs, the most similar first.
    """
    known = [isinstance(stored, bytes) and bool(stored) for stored in table["fingerprint"]]
    rows = table[np.array(known, dtype=bool) & (table["status"] == "ok").to_numpy() & table["split"].notna().to_numpy()]
    paths, splits = rows["path"].tolist(), [str(split) for split in rows["split"]]
    # A unit lies in one split, so comparing what lies in different splits compares different units.
    pairs = find_duplicates([from_bytes(stored) for stored in rows["fingerprint"]], splits)
    leaks = [
        Leak(paths[pair.first], paths[pair.second], splits[pair.first], splits[pair.second], pair.similarity)
        for pair in pairs
    ]
    return sorted(leaks, key=lambda leak: (-leak.similarity, leak.path, leak.other))


def look_alikes(table: pd.DataFrame) -> list[Leak]:
    """The same of a catalog whose fingerprints lie among the findings on disk."""
    prints = [b"" if finding is None else finding.fingerprint for _, finding in details(table)]
    return straddling(table.assign(fingerprint=pd.Series(prints, index=table.index, dtype=object)))


def _permuted(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same hashes with their bits in `_ORDER`; distances stay as they are."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=-1)
    return np.packbits(np.ascontiguousarray(bits[..., _ORDER]), axis=-1).view(np.uint64)


def _distance(first: np.ndarray, second: np.ndarray, mirror: np.ndarray) -> int:
    """Bits within which `SHARE` of the hashes of the shorter clip have a match in the longer, under the crop and
    mirroring that suit best: frames of one clip, as they are or mirrored, against frames and crops of the other.
    """
    short, long = (first, second) if len(first) <= len(second) else (second, first)
    needed = int(np.ceil(SHARE * len(short))) - 1
    best = BITS
    for crop in range(len(CROPS)):
        for part, whole in ((short[:, 0], long[:, crop]), (short[:, crop], long[:, 0])):
            for turned in (part, part ^ mirror):
                nearest = _bits(turned[:, None], whole[None]).min(axis=1)
                best = min(best, int(np.partition(nearest, needed)[needed]))
    return best


def _bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """In how many bits hashes (..., 4) differ."""
    return np.bitwise_count(first ^ second).sum(axis=-1, dtype=np.uint16)


def _candidates(clips: Sequence[np.ndarray], units: np.ndarray, mirror: np.ndarray) -> Iterator[tuple[int, int]]:
    """Positions of clips of different units that have a near hash in common, each pair once, in order."""
    owner = np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])
    if not len(owner):
        return
    hashes = np.concatenate(list(clips))
    whole = hashes[:, 0]
    asked, asking = np.concatenate([whole, whole ^ mirror]), np.tile(owner, 2)
    stored, storing = hashes.reshape(-1, WORDS), np.repeat(owner, len(CROPS))
    pairs, distances = np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.uint16)
    for band in range(BANDS):
        left, right = _joined(asked.view(np.uint16)[:, band], asking, stored.view(np.uint16)[:, band], storing)
        apart = units[asking[left]] != units[storing[right]]
        left, right = left[apart], right[apart]
        distance = _bits(asked[left], stored[right])
        near = distance <= NEAR
        found = np.sort(np.stack([asking[left[near]], storing[right[near]]], axis=1), axis=1)
        pairs, distances = _nearest(np.concatenate([pairs, found]), np.concatenate([distances, distance[near]]))
    yield from map(tuple, pairs.tolist())


def _nearest(pairs: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once, with its smallest distance, if it is one of the `PARTNERS` nearest of either clip; sorted."""
    order = np.lexsort((distances, pairs[:, 1], pairs[:, 0]))
    pairs, distances = pairs[order], distances[order]
    new = np.ones(len(pairs), dtype=bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    pairs, distances = pairs[new], distances[new]
    clip = pairs.T.ravel()  # each pair twice, once for each of its clips
    order = np.lexsort((np.tile(distances, 2), clip))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(clip[order], clip[order], side="left")
    keep = (rank < PARTNERS).reshape(2, -1).any(axis=0)
    return pairs[keep], distances[keep]


def _joined(
    asked: np.ndarray, asking: np.ndarray, stored: np.ndarray, storing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (left, right) of the hashes that have the same value in a band, one of each clip per value.

    Values that most hashes have come last, and those beyond `JOINS` are left out: they tell clips apart least.
    """
    left, right = _first_of_each(asked, asking), _first_of_each(stored, storing)
    keys = asked[left].astype(np.int64)
    begin = np.searchsorted(stored[right], keys, side="left")
    length = np.searchsorted(stored[right], keys, side="right") - begin
    order = np.argsort(length, kind="stable")
    order = order[np.cumsum(length[order]) <= JOINS]
    left, begin, length = left[order], begin[order], length[order]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return np.repeat(left, length), right[np.repeat(begin, length) + within]


def _first_of_each(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Positions of one hash per value and clip, by value."""
    return np.unique(values.astype(np.int64) << 40 | owners, return_index=True)[1]
