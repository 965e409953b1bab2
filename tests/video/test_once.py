from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config, VideoConfig
from pipeline.data.clips import Plan, wanted_frames
from pipeline.errors import VideoError
from pipeline.video import once
from pipeline.video.once import read_once
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

CHOOSE = partial(wanted_frames, plan=Plan.of(Config(video=VideoConfig(frames=5))))


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    frames = np.random.default_rng(0).integers(0, 256, (23, 48, 64, 3), dtype=np.uint8)
    for suffix in ("mp4", "avi", "webm"):
        write_video(str(folder / f"clip.{suffix}"), frames, 12.0)
    data = (folder / "clip.avi").read_bytes()
    (folder / "cut.avi").write_bytes(data[: len(data) // 2])
    return folder


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.webm", "cut.avi"])
def test_one_pass_gives_what_two_give(movie: Path, name: str) -> None:
    found = read_once(str(movie / name), CHOOSE)
    info = probe(str(movie / name))
    wanted = CHOOSE(info.times)
    twice = read_frames(str(movie / name), wanted, info.times[wanted])
    assert found is not None and found[0].damage == info.damage and found[0].duration == info.duration
    assert np.array_equal(found[0].times, info.times) and np.array_equal(found[1].times, twice.times)
    assert np.array_equal(found[1].frames, twice.frames)
    assert bool(info.damage) == (name == "cut.avi")


def test_times_that_were_wrongly_stated_lead_to_no_wrong_frame(movie: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_likely_times", lambda *_: [np.arange(60) / 12.0])
    assert read_once(str(movie / "clip.mp4"), CHOOSE) is None
    monkeypatch.setattr(once, "_likely_times", lambda *_: [np.arange(60) / 12.0, np.arange(23) / 12.0])
    both = read_once(str(movie / "clip.mp4"), CHOOSE)  # what it holds of other guesses does no harm
    info = probe(str(movie / "clip.mp4"))
    assert both is not None and np.array_equal(both[1].times, info.times[CHOOSE(info.times)])


def test_what_is_no_video_file_is_left_to_two_passes_or_refused(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match="not a video"):
        read_once(str(tmp_path / "no.mp4"), CHOOSE)
    write_video(str(tmp_path / "clip.avi"), np.zeros((3, 32, 32, 3), np.uint8), 10.0)
    (tmp_path / "frames").mkdir()
    import cv2

    cv2.imwrite(str(tmp_path / "frames" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    assert read_once(str(tmp_path / "frames"), CHOOSE) is None
