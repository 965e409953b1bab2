"""B16: a target rate kept as an integer repeats frames of 29.97 and 23.976 fps files (SlowFast#182)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.video.reader import probe
from pipeline.video.sampling import frames_at, rate_times
from pipeline.video.writer import write_video


@pytest.mark.parametrize("name", ["x.mp4", "x.avi", "x.webm", "x.mkv"])
@pytest.mark.parametrize("fps", [23.976, 29.97, 30.0])
def test_a_file_sampled_at_its_own_rate_gives_each_frame_once(tmp_path: Path, name: str, fps: float) -> None:
    path = str(tmp_path / name)
    write_video(path, np.zeros((120, 32, 32, 3), np.uint8), fps)
    times = probe(path).times
    shown = frames_at(times, rate_times(times[0], times[-1] + 0.002, fps))
    np.testing.assert_array_equal(shown, np.arange(120))


def test_variable_frame_rate_shows_the_frame_of_the_moment() -> None:
    times = np.cumsum([0.0, 0.02, 0.2, 0.02, 0.02, 0.2])
    shown = frames_at(times, rate_times(times[0], times[-1], 10.0))
    assert shown.tolist() == [0, 1, 1, 4, 4]
