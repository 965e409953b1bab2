"""Motion JPEG: only the wanted frames are decoded, to the same pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.video.capture import Capture
from pipeline.video.mjpeg import MotionJpeg, one_frame_avi
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

WANTED = np.array([3, 40, 77, 119])


@pytest.fixture(params=[".avi", ".mkv"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """120 frames of a picture that moves."""
    name = str(tmp_path / f"x{request.param}")
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
    write_video(name, np.stack([np.roll(picture, step, axis=1) for step in range(120)]), 29.97, "MJPG")
    return name


def test_the_same_pixels_without_decoding_between(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(path)
    through = read_frames(path, WANTED)
    decoded: list[float] = []
    original = MotionJpeg.picture

    def picture(source: MotionJpeg) -> np.ndarray | None:
        decoded.append(source.time)
        return original(source)

    monkeypatch.setattr(MotionJpeg, "picture", picture)
    monkeypatch.setattr(Capture, "advance", lambda self: pytest.fail("decoded a frame between"))
    clip = read_frames(path, WANTED, info.times[WANTED])
    assert decoded == info.times[WANTED].tolist() == clip.times.tolist()
    np.testing.assert_array_equal(clip.frames, through.frames)


def test_dense_frames_are_read_through(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MotionJpeg, "picture", lambda self: pytest.fail("one by one"))
    wanted = np.arange(0, 120, 2)
    assert len(read_frames(path, wanted, probe(path).times[wanted]).frames) == 60


@pytest.mark.parametrize("failure", [None, cv2.error("no overload"), TypeError("no overload")])
def test_where_packets_fail_the_file_is_read_through(
    path: str, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    """Damaged packets, and an OpenCV that cannot read from memory."""
    through = read_frames(path, WANTED)
    times = probe(path).times[WANTED]
    if failure is None:
        monkeypatch.setattr("pipeline.video.mjpeg.one_frame_avi", lambda packet, *size: b"RIFF" + b"\0" * 100)
    else:
        original = cv2.VideoCapture

        def refuse(source: object, *args: object) -> cv2.VideoCapture:
            if not isinstance(source, str):
                raise failure
            return original(source, *args)

        monkeypatch.setattr(cv2, "VideoCapture", refuse)
    np.testing.assert_array_equal(read_frames(path, WANTED, times).frames, through.frames)


def test_the_avi_is_one_that_others_read(tmp_path: Path) -> None:
    picture = np.full((40, 60, 3), (20, 120, 220), np.uint8)
    _, packet = cv2.imencode(".jpg", picture)
    path = tmp_path / "one.avi"
    path.write_bytes(one_frame_avi(packet.tobytes(), 60, 40))
    info = probe(str(path))
    assert (info.frames, info.width, info.height, info.damage) == (1, 60, 40, "")
    np.testing.assert_allclose(
        read_frames(str(path), np.array([0])).frames.mean(axis=(0, 1, 2)), [220, 120, 20], atol=4
    )
