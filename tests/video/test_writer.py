"""Writing: every format that is offered reads back, and what cannot be written is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import FORMATS, write_video


@pytest.mark.parametrize(("suffix", "codec"), [(s, c) for s, codecs in FORMATS.items() for c in codecs])
def test_round_trip(tmp_path: Path, suffix: str, codec: str) -> None:
    levels = np.linspace(40, 200, 9).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (9, 48, 64, 3)).copy()
    frames[:, :, :32, 2] = 20
    path = str(tmp_path / f"x{suffix}")
    write_video(path, frames, 29.97, codec)
    info = probe(path)
    assert (info.frames, info.width, info.height) == (9, 64, 48)
    np.testing.assert_allclose(info.times - info.times[0], np.arange(9) / 29.97, atol=1.1e-3)
    back = read_frames(path, np.arange(9)).frames
    assert np.abs(back.astype(int) - frames).mean() < 6


@pytest.mark.parametrize(
    ("name", "shape", "fps", "codec"),
    [
        ("x.mp4", (2, 47, 64, 3), 25.0, None),
        ("x.mp4", (2, 48, 63, 3), 25.0, None),
        ("x.mp4", (0, 48, 64, 3), 25.0, None),
        ("x.mp4", (2, 48, 64, 1), 25.0, None),
        ("x.mp4", (2, 48, 64, 3), 0.0, None),
        ("x.mp4", (2, 48, 64, 3), 25.0, "VP80"),
        ("x.gif", (2, 48, 64, 3), 25.0, None),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, name: str, shape: tuple[int, ...], fps: float, codec: str | None
) -> None:
    with pytest.raises(ValueError):
        write_video(str(tmp_path / name), np.zeros(shape, np.uint8), fps, codec)
    assert not (tmp_path / name).exists()


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="folder"):
        write_video(str(tmp_path / "none" / "x.mp4"), np.zeros((2, 48, 64, 3), np.uint8), 25.0)
