"""Thumbnails: one per quarter of a second, never more than 512."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.video.reader import probe
from pipeline.video.thumbnails import LIMIT, Thumbnails, thumbnail
from pipeline.video.writer import write_video


def collect(times: np.ndarray) -> list[float]:
    """Times of the thumbnails that are kept, by a picture that shows its number."""
    seen = Thumbnails()
    for number, time in enumerate(times):
        if seen.wants(time):
            seen.add(time, np.full((64, 64), number % 251, np.uint8))
    return seen.array()[:, 0, 0].tolist()


def test_one_per_quarter_second() -> None:
    assert collect(np.arange(25) / 25) == [0, 7, 13, 19]
    assert collect(3.1 + np.arange(100) / 100) == [0, 25, 50, 75]
    assert collect(np.array([7.0])) == [0]


@pytest.mark.parametrize("seconds", [127, 128, 129, 300, 4000])
def test_long_sources_have_at_most_512(seconds: int) -> None:
    times = np.arange(seconds * 8) / 8
    step = 0.25
    while seconds > step * LIMIT:
        step *= 2
    kept = collect(times)
    assert len(kept) == seconds / step <= LIMIT
    assert kept == [round(8 * step * k) % 251 for k in range(len(kept))]


def test_gaps_leave_no_duplicates() -> None:
    assert len(collect(np.array([0, 0.1, 5.0, 5.1, 5.3, 60.0]))) == 4


def test_a_thumbnail_is_the_grey_mean() -> None:
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:, 128:] = (0, 255, 0)
    small = thumbnail(frame)
    assert small.shape == (64, 64) and small.dtype == np.uint8
    assert small[:, :31].max() == 0 and abs(int(small[:, 33:].mean()) - 150) <= 1


def test_probe_takes_them_only_when_asked(tmp_path: Path) -> None:
    levels = np.linspace(30, 220, 30).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (30, 48, 64, 3))
    path = str(tmp_path / "x.mp4")
    write_video(path, frames, 15.0)
    assert probe(path).thumbnails.shape == (0, 64, 64)
    small = probe(path, thumbnails=True).thumbnails
    assert small.shape == (8, 64, 64) and small.dtype == np.uint8
    np.testing.assert_allclose(small.mean(axis=(1, 2)), levels[[0, 4, 8, 12, 15, 19, 23, 27]], atol=4)
