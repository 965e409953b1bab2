"""Near-duplicates: copies are found whatever was done to them, other clips are not, and the search stays bounded."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.data import duplicates
from pipeline.data.demo import write_demo
from pipeline.data.duplicates import NEAR, Pair, find_duplicates, straddling
from pipeline.data.fingerprint import BITS, MIRRORED, fingerprint, to_bytes
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

Hashes = NDArray[np.uint64]


def random_clip(rng: np.random.Generator, frames: int) -> Hashes:
    """Hashes that nothing else resembles: two random ones differ in 128 bits of 256, give or take 8."""
    return rng.integers(0, 2**64, (frames, 3, 4), dtype=np.uint64)


def worn(rng: np.random.Generator, clip: Hashes, share: float) -> Hashes:
    """The same with this share of its bits turned."""
    turned = rng.random((*clip.shape[:2], BITS)) < share
    return clip ^ np.packbits(turned, axis=-1).view(np.uint64)


def look(path: str | Path) -> Hashes:
    return fingerprint(probe(str(path), thumbnails=True).thumbnails)


def places(pairs: list[Pair]) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in pairs}


CHANGES: dict[str, Callable[[Hashes], Hashes]] = {
    "same": lambda clip: clip,
    "mirrored": lambda clip: clip ^ MIRRORED,
    "cropped": lambda clip: np.roll(clip, -1, axis=1),  # what is the crop of one is the whole of the other
    "cropped more": lambda clip: np.roll(clip, -2, axis=1),
    "trimmed": lambda clip: clip[len(clip) // 2 :],
    "backwards": lambda clip: clip[::-1],
    "one frame": lambda clip: clip[-1:],
}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 30), min_size=1, max_size=12), st.sampled_from(list(CHANGES)))
def test_copies_are_found_and_nothing_else(seed: int, lengths: list[int], change: str) -> None:
    rng = np.random.default_rng(seed)
    clips = [random_clip(rng, length) for length in lengths]
    copied = int(rng.integers(len(clips)))
    clips.append(worn(rng, CHANGES[change](clips[copied]), 0.04))
    pairs = find_duplicates(clips)
    assert places(pairs) == ({(copied, len(clips) - 1)} if lengths[copied] else set())
    assert all(1 - NEAR / BITS <= pair.similarity <= 1 for pair in pairs)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_clips_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clips = [random_clip(rng, 6) for _ in range(5)]
    clips += [worn(rng, clip, 0.08) for clip in clips[:3]] + [worn(rng, clips[0] ^ MIRRORED, 0.05)]
    order = rng.permutation(len(clips)).tolist()
    shuffled = find_duplicates([clips[index] for index in order])
    back = {tuple(sorted((order[pair.first], order[pair.second]))): pair.similarity for pair in shuffled}
    assert back == {(pair.first, pair.second): pair.similarity for pair in find_duplicates(clips)} and len(back) >= 4


def test_a_quarter_in_common_is_enough_and_less_is_not() -> None:
    rng = np.random.default_rng(0)
    one, other = random_clip(rng, 20), random_clip(rng, 24)
    four, five = other.copy(), other.copy()
    four[3:7], five[3:8] = one[10:14], one[10:15]
    assert find_duplicates([one, four]) == []
    assert find_duplicates([one, five]) == [Pair(0, 1, 1.0)]


def test_clips_of_one_unit_are_not_compared() -> None:
    rng = np.random.default_rng(0)
    clip = random_clip(rng, 8)
    assert places(find_duplicates([clip] * 4, ["a", "a", "b", "a"])) == {(0, 2), (1, 2), (2, 3)}
    assert find_duplicates([clip] * 4, ["a"] * 4) == []
    with pytest.raises(ValueError, match="4 fingerprints, but 3 units"):
        find_duplicates([clip] * 4, ["a"] * 3)


def test_no_clip_and_clips_without_evidence() -> None:
    none = fingerprint(np.zeros((5, 64, 64), np.uint8))
    assert find_duplicates([]) == [] and find_duplicates([none, none, none]) == []


def test_a_frame_that_stands_still_is_found_in_its_copy_and_in_its_still() -> None:
    rng = np.random.default_rng(0)
    still = random_clip(rng, 1)
    pairs = find_duplicates([np.repeat(still, 30, axis=0), random_clip(rng, 30), still, worn(rng, still, 0.05)])
    assert places(pairs) == {(0, 2), (0, 3), (2, 3)}


def test_where_all_clips_look_alike_time_is_bounded_and_copies_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed camera: 300 clips within 60 bits of each other and so no pairs, 5 of them copied; then 300 alike."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(duplicates, "PARTNERS", 4)
    monkeypatch.setattr(duplicates, "JOINS", 20_000)
    compared: list[int] = []
    distance = duplicates._distance
    monkeypatch.setattr(duplicates, "_distance", lambda *clips: compared.append(1) or distance(*clips))
    camera = random_clip(rng, 6)
    clips = [worn(rng, camera, 0.14) for _ in range(300)]
    clips += [worn(rng, clip, 0.03) for clip in clips[:5]]
    assert {(k, 300 + k) for k in range(5)} <= places(find_duplicates(clips))
    compared.clear()
    pairs = find_duplicates([worn(rng, camera, 0.02) for _ in range(300)])
    assert 300 <= len(pairs) <= len(compared) <= 300 * 4


def test_bug_pairs_in_two_splits_are_listed() -> None:
    rng = np.random.default_rng(0)
    one, other = random_clip(rng, 9), random_clip(rng, 9)
    clips = [one, worn(rng, one, 0.06), other, one, worn(rng, other ^ MIRRORED, 0.02), one, one]
    table = pd.DataFrame(
        {
            "path": [f"{name}.mp4" for name in "abcdefg"],
            "unit": list("1234567"),
            "split": ["train", "test", "val", "train", "test", "test", None],
            "status": ["ok"] * 5 + ["truncated", "ok"],
            "fingerprint": pd.Series([to_bytes(clip) for clip in clips], dtype=object),
        }
    )
    leaks = straddling(table)
    assert {(leak.path, leak.other, leak.split, leak.other_split) for leak in leaks} == {
        ("a.mp4", "b.mp4", "train", "test"),
        ("b.mp4", "d.mp4", "test", "train"),
        ("c.mp4", "e.mp4", "val", "test"),
    }
    assert leaks[0].path == "c.mp4" and leaks[0].similarity > leaks[-1].similarity
    for nothing in (b"", None, float("nan")):
        assert straddling(table.assign(fingerprint=pd.Series([nothing] * 7, dtype=object))) == []


def test_bug_clips_of_one_colour_are_no_duplicates(tiny_clips: Path, tmp_path: Path) -> None:
    """A hash of a flat frame is that of the codec's noise, which clips have in common."""
    paths = sorted(path for path in tiny_clips.rglob("*.*") if "c09" not in path.name)
    for number, level in enumerate((0, 20, 21, 120, 255)):
        paths += [tmp_path / f"{number}.avi", tmp_path / f"{number}.mp4"]
        for path in paths[-2:]:
            write_video(str(path), np.full((6, 48, 64, 3), level, np.uint8), 10.0)
    assert len(paths) == 40 and find_duplicates([look(path) for path in paths]) == []


def test_the_demo_has_no_duplicate_between_groups(tmp_path: Path) -> None:
    write_demo(str(tmp_path), groups=6)
    with open(tmp_path / "clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    looks = [look(tmp_path / row["path"]) for row in rows]
    assert all(len(hashes) for hashes in looks)
    assert find_duplicates(looks, [row["group"] for row in rows]) == []


def test_real_clips_mirrored_trimmed_cropped_and_encoded_again(data_root: Path, tmp_path: Path) -> None:
    """Six clips of each of two data sets, where one camera films all: only the copies are pairs."""
    paths, units = [], []
    for name in ("ut_interaction", "wagon_state"):
        with open(data_root / name / "clips.csv", newline="") as file:
            groups = {row["group"]: row["path"] for row in csv.DictReader(file)}
        for group in sorted(groups)[:6]:
            paths.append(str(data_root / name / groups[group]))
            units.append(group)
    looks = [look(path) for path in paths]
    assert find_duplicates(looks, units) == []
    made: list[tuple[int, str]] = []
    for number in (0, 3, 7, 10):
        info = probe(paths[number])
        frames = read_frames(paths[number], np.arange(min(info.frames, 120))).frames
        frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
        quarter, (high, wide) = len(frames) // 4, (2 * (side // 20) for side in frames.shape[1:3])
        copies = {
            "mirrored.mp4": frames[:, :, ::-1],
            "trimmed.mp4": frames[quarter : len(frames) - quarter],
            "cropped.mp4": frames[:, high:-high, wide:-wide],
            "again.avi": frames,
        }
        for name, copy in copies.items():
            file = tmp_path / f"{number}_{name}"
            write_video(str(file), copy, info.fps)
            looks.append(look(file))
            made.append((number, name))
    pairs = places(find_duplicates(looks))
    missed = [made[k] for k in range(len(made)) if (made[k][0], len(paths) + k) not in pairs]
    strange = [(a, b) for a, b in pairs if a < len(paths) <= b and made[b - len(paths)][0] != a]
    assert missed == [] and strange == []
