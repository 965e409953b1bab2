"""Reading is as fast as the decoder: ratios within one run, the best of several, in processor time and with one
decoding thread on both sides, so that neither a busy machine nor a second core decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video


def best(*calls: Callable[[], object], rounds: int = 15) -> list[float]:
    """Shortest processor time of each, taken in turn."""
    times = [[0.0] * len(calls) for _ in range(rounds)]
    for row in times:
        for column, call in enumerate(calls):
            start = time.process_time()
            call()
            row[column] = time.process_time() - start
    return np.array(times).min(axis=0).tolist()


def opened(path: str) -> cv2.VideoCapture:
    return cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


@pytest.fixture(autouse=True)
def one_decoding_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.video.capture.decoder_threads", lambda: 1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """300 frames of 320 x 240."""
    path = str(tmp_path_factory.mktemp("speed") / "x.mp4")
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    write_video(path, np.stack([np.roll(texture, step, axis=1) for step in range(300)]), 25.0)
    return path


def test_all_frames(clip: str) -> None:
    """Against the plain loop that makes the same clip: read, convert to RGB, keep, stack."""

    def plain() -> np.ndarray:
        capture, frames = opened(clip), []
        while True:
            ok, frame = capture.read()
            if not ok:
                return np.stack(frames)
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))

    np.testing.assert_array_equal(plain(), read_frames(clip, np.arange(300)).frames)
    loop, ours = best(plain, lambda: read_frames(clip, np.arange(300)))
    assert ours < loop / 0.95


def test_sixteen_of_three_hundred(clip: str) -> None:
    wanted = np.linspace(0, 299, 18)[1:-1].astype(int)
    times = probe(clip).times[wanted]

    def plain() -> None:
        capture, chosen, index = opened(clip), set(wanted.tolist()), 0
        while capture.grab():
            if index in chosen:
                capture.retrieve()
            index += 1

    loop, ours = best(plain, lambda: read_frames(clip, wanted, times))
    assert ours < loop / 0.85


def test_distant_frames_are_reached_by_seeking(tmp_path: Path) -> None:
    """16 frames of ten minutes; OpenCV's MPEG-4 has a key frame in 12."""
    path = str(tmp_path / "long.mp4")
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    write_video(path, np.broadcast_to(picture, (15_000, 96, 128, 3)), 25.0)
    wanted = np.linspace(0, 14_999, 18)[1:-1].astype(int)
    times = probe(path).times[wanted]
    through, sought = best(lambda: read_frames(path, wanted), lambda: read_frames(path, wanted, times), rounds=3)
    assert sought < through / 5
