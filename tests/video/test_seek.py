"""Reaching distant frames: the same frames as by reading through, or reading through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import VideoError
from pipeline.video import reader
from pipeline.video.capture import Capture
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

FILES = [
    ("closed.mp4", "libx264", {"x264-params": "keyint=40:bframes=3"}),
    ("open.mp4", "libx264", {"x264-params": "open-gop=1:keyint=40:bframes=3"}),
    ("open.mkv", "libx264", {"x264-params": "open-gop=1:keyint=40:bframes=3"}),
    ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=40"}),
    ("pyramid.mkv", "libx264", {"x264-params": "keyint=60:bframes=8:b-pyramid=normal:ref=8"}),
    ("open_hevc.mp4", "libx265", {"x265-params": "open-gop=1:keyint=40:bframes=4:log-level=none"}),
    ("mpeg4.mp4", "mpeg4", {"bf": "2", "g": "12"}),
    ("vp8.webm", "libvpx", {"g": "30", "deadline": "realtime"}),
    ("vp9.webm", "libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8"}),
    ("fragments.mp4", "libx264", {"x264-params": "keyint=40"}),
    ("motion.avi", "mjpeg", {}),
    ("motion.mov", "mjpeg", {}),
    ("motion.mkv", "mjpeg", {}),
    ("mpeg4.avi", "mpeg4", {"bf": "2", "g": "12"}),
    ("stream.ts", "libx264", {}),
]


@pytest.fixture
def seeks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What every attempt came to."""
    results: list[bool] = []
    original = Capture.seek

    def seek(capture: Capture, time: float) -> bool:
        results.append(original(capture, time))
        return results[-1]

    monkeypatch.setattr(Capture, "seek", seek)
    return results


def picture(step: int) -> np.ndarray:
    """A drifting texture with the number of the frame in its brightness."""
    texture = np.random.default_rng(5).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    big = cv2.resize(np.roll(texture, (step // 3, step // 2), axis=(0, 1)), (120, 80), interpolation=cv2.INTER_CUBIC)
    big[:16] = step % 250
    return big


def encode(path: Path, codec: str, options: dict[str, str], ticks: list[int]) -> None:
    """Frames at these times, in hundredths of a second."""
    av: Any = pytest.importorskip("av")
    from fractions import Fraction

    flags = {"movflags": "+frag_keyframe+empty_moov"} if path.name.startswith("fragments") else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 120, 80, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if ticks[1] != 4:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for step, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(step), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 100)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.parametrize(("name", "codec", "options"), FILES, ids=[name for name, _, _ in FILES])
def test_the_same_pixels(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch, seeks: list[bool]
) -> None:
    path = tmp_path / name
    encode(path, codec, options, list(range(0, 960, 4)))
    info = probe(str(path))
    assert info.frames == 240
    rng = np.random.default_rng(1)
    for _ in range(3):
        wanted = np.sort(rng.choice(240, 5, replace=False))
        through = read_frames(str(path), wanted)
        with monkeypatch.context() as patch:
            patch.setattr(reader, "FAR", 2)
            patch.setattr(reader, "FAR_INTRA", 2)
            clip = read_frames(str(path), wanted, info.times[wanted])
        np.testing.assert_array_equal(clip.frames, through.frames)
        np.testing.assert_array_equal(clip.times, through.times)
    # Transport streams and reordered AVIs are read through, of Motion JPEG packets are taken (see test_mjpeg); all
    # else is seeked, and every seek lands.
    through_anyway = name in ("stream.ts", "mpeg4.avi") or codec == "mjpeg"
    assert seeks == [] if through_anyway else len(seeks) >= 12 and all(seeks)


def test_a_variable_rate_is_right_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV counts by the mean rate and lands elsewhere; that is seen, and the file is read through."""
    path = tmp_path / "x.mkv"
    steps = np.random.default_rng(2).choice([2, 4, 40], 200)
    encode(path, "libx264", {"x264-params": "keyint=50"}, np.cumsum(steps).tolist())
    info = probe(str(path))
    assert info.frames == 200 and "variable frame rate" in info.marks
    wanted = np.array([20, 90, 170])
    through = read_frames(str(path), wanted)
    monkeypatch.setattr(reader, "FAR", 2)
    clip = read_frames(str(path), wanted, info.times[wanted])
    np.testing.assert_array_equal(clip.frames, through.frames)


def test_a_seek_that_fails_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeks: list[bool]
) -> None:
    path = str(tmp_path / "x.mkv")
    frames = np.stack([np.full((48, 64, 3), step, np.uint8) for step in range(200)])
    write_video(path, frames, 25.0, "FFV1")
    info = probe(path)
    wanted = np.array([60, 180])
    monkeypatch.setattr(cv2.VideoCapture, "set", lambda *args: True, raising=False)
    assert abs(read_frames(path, wanted, info.times[wanted]).frames[1].mean() - 180) < 2
    assert seeks and all(seeks), "without a jump the frames between are read and the right one is still found"
    seeks.clear()
    monkeypatch.setattr(Capture, "seek", lambda capture, time: False)
    assert abs(read_frames(path, wanted, info.times[wanted]).frames[0].mean() - 60) < 2


def test_a_wrong_time_is_never_taken_for_a_frame(tmp_path: Path) -> None:
    path = str(tmp_path / "x.mkv")
    write_video(path, np.zeros((200, 48, 64, 3), np.uint8), 25.0, "FFV1")
    times = probe(path).times[[0, 150]] + [0, 0.013]
    with pytest.raises(VideoError, match="frame 150 is at"):
        read_frames(path, np.array([0, 150]), times)


def test_near_frames_are_not_seeked(tmp_path: Path, seeks: list[bool]) -> None:
    path = str(tmp_path / "x.mp4")
    write_video(path, np.zeros((290, 48, 64, 3), np.uint8), 25.0)
    wanted = np.linspace(0, 289, 16).astype(int)
    read_frames(path, wanted, probe(path).times[wanted])
    assert seeks == []
