from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.clip_file import ClipFile
from pipeline.data.corruptions import COPY, CORRUPTIONS, write_corrupted
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

NAMES = [corruption.name for corruption in CORRUPTIONS]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> ClipFile:
    """Eight smooth frames, each with a brightness of its own, 10 per second."""
    path = str(tmp_path_factory.mktemp("original") / "clip.mkv")
    ramp = np.linspace(0, 60, 64)[None, :, None] + np.linspace(0, 60, 48)[:, None, None]
    frames = np.stack([ramp + 12 * t + np.zeros(3) for t in range(8)]).astype(np.uint8)
    write_video(path, frames, 10.0)
    info = probe(path)
    return ClipFile(path, 0, info.times, info.duration, "cd" * 32, 0)


@pytest.fixture(scope="module")
def copies(original: ClipFile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Every copy's frames."""
    folder = str(tmp_path_factory.mktemp("copies"))
    paths = write_corrupted(folder, (3, original))
    assert len({Path(path).name for path in paths}) == len(NAMES)
    found = {}
    for name, path in zip(NAMES, paths, strict=True):
        info = probe(path)
        assert info.frames == 8 and np.diff(info.times) == pytest.approx(np.full(7, 0.1), abs=2e-3)
        found[name] = read_frames(path, np.arange(8)).frames.astype(np.int64)
    return found


def mean(frames: np.ndarray) -> float:
    return float(frames.mean())


def test_the_control_is_the_clip_itself(original: ClipFile, copies: dict[str, np.ndarray]) -> None:
    plain = read_frames(original.path, np.arange(8)).frames.astype(np.int64)
    assert np.abs(copies[COPY] - plain).max() <= 2  # FFV1 keeps colour as YUV at half size


def test_each_copy_is_worse_in_its_own_way(copies: dict[str, np.ndarray]) -> None:
    plain = copies[COPY]
    assert mean(copies["darker by 0.25"]) < mean(plain) - 40 < mean(plain) + 40 < mean(copies["brighter by 0.25"])
    assert copies["half the size"].shape[1:3] == (24, 32) and copies["a quarter of the size"].shape[1:3] == (12, 16)
    quiet, loud = (np.abs(copies[f"noise of {n} grey values"] - plain).mean() for n in (10, 25))
    assert 1 < quiet < loud
    noise = copies["noise of 25 grey values"] - plain
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.3  # every frame has noise of its own
    fine, coarse = (np.abs(copies[f"low bitrate: JPEG quality {q}"] - plain).mean() for q in (30, 8))
    assert 0 < fine < coarse


def test_a_lost_frame_is_the_one_before_again(copies: dict[str, np.ndarray]) -> None:
    shown = copies["half of the frames lost"].mean(axis=(1, 2, 3))
    steps = np.diff(shown)
    assert (np.abs(steps) < 1).sum() >= 2 and (steps > -1).all() and shown[0] == pytest.approx(mean(copies[COPY][0]))


def test_the_same_clip_gives_the_same_copies(original: ClipFile, copies: dict[str, np.ndarray], tmp_path: Path) -> None:
    paths = write_corrupted(str(tmp_path), (0, original))
    for name in ("noise of 25 grey values", "half of the frames lost"):
        again = read_frames(paths[NAMES.index(name)], np.arange(8)).frames
        assert np.array_equal(again, copies[name])


def test_odd_sides_and_a_single_frame_are_copied(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "still.png"), np.full((15, 21, 3), 90, dtype=np.uint8))
    paths = write_corrupted(str(tmp_path), (0, ClipFile(str(tmp_path / "still.png"), 0, np.zeros(1), 0.0, "", 0)))
    info = probe(paths[0])
    assert (info.frames, info.width, info.height) == (1, 22, 16)
