"""What OpenCV cannot decode: read by PyAV where it is installed, refused with a hint where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import Reason, VideoError
from pipeline.video import sources
from pipeline.video.av_reader import AvCapture
from pipeline.video.containers import read_structure
from pipeline.video.reader import probe, read_frames

av = pytest.importorskip("av")

INTERLACED = [
    ("libx264", ".mp4", {"x264opts": "tff"}),
    ("libx264", ".mkv", {"x264opts": "tff"}),
    ("libx264", ".ts", {"x264opts": "tff"}),
    ("libx264", ".avi", {"x264opts": "tff"}),
    ("libx264", ".flv", {"x264opts": "tff"}),
    ("mpeg4", ".avi", {"flags": "+ildct+ilme"}),
    ("mpeg4", ".mp4", {"flags": "+ildct+ilme"}),
    ("mpeg4", ".mkv", {"flags": "+ildct+ilme"}),
    ("mpeg2video", ".mpg", {"flags": "+ildct+ilme"}),
    ("mpeg2video", ".avi", {"flags": "+ildct+ilme"}),
    ("dvvideo", ".avi", {}),
]
PROGRESSIVE = [(codec, suffix, {}) for codec, suffix, _ in INTERLACED if codec != "dvvideo"]


def encode(path: str, codec: str, options: dict[str, str]) -> None:
    """16 frames whose grey level is 10 * t, with a white bar at the left."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = (720, 576) if codec == "dvvideo" else (160, 96)
        stream.pix_fmt = "yuv420p"
        for step in range(16):
            pixels = np.full((stream.height, stream.width, 3), 10 * step, np.uint8)
            pixels[:, : stream.width // 4] = 235
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def levels(path: str, times: np.ndarray) -> np.ndarray:
    frames = read_frames(path, np.arange(len(times)), times).frames
    return frames[:, :, frames.shape[2] // 2 :].mean(axis=(1, 2, 3))


@pytest.mark.parametrize(("codec", "suffix", "options"), INTERLACED)
def test_interlaced_video_is_read_by_pyav(tmp_path: Path, codec: str, suffix: str, options: dict[str, str]) -> None:
    """OpenCV hands out whatever memory it finds for these files, without an error."""
    path = str(tmp_path / f"x{suffix}")
    encode(path, codec, options)
    assert read_structure(path).marks == ("interlaced",)
    info = probe(path)
    assert info.frames == 16 and "interlaced" in info.marks
    np.testing.assert_allclose(levels(path, info.times), np.arange(16) * 10, atol=8)


@pytest.mark.parametrize(("codec", "suffix", "options"), PROGRESSIVE)
def test_progressive_video_stays_with_opencv(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / f"x{suffix}")
    encode(path, codec, options)
    monkeypatch.setattr(sources, "installed", lambda: "")
    info = probe(path)
    # AVI has no times for the last reordered frames.
    assert info.frames == 16 and set(info.marks) <= {"repaired times"}
    np.testing.assert_allclose(levels(path, info.times), np.arange(16) * 10, atol=8)


def test_without_pyav_interlaced_video_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "x.mp4")
    encode(path, "libx264", {"x264opts": "tff"})
    monkeypatch.setattr(sources, "installed", lambda: "")
    for read in (lambda: probe(path), lambda: read_frames(path, np.array([0]))):
        with pytest.raises(VideoError, match=r'interlaced .* pip install "video-lstm\[av\]"') as caught:
            read()
        assert caught.value.reason is Reason.UNSUPPORTED_CODEC


def test_av1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "x.mp4")
    encode(path, "libsvtav1", {"preset": "12"})
    info = probe(path)
    assert (info.frames, info.width, info.height, info.codec, info.damage) == (16, 160, 96, "av01", "")
    np.testing.assert_allclose(info.times, np.arange(16) / 25, atol=1e-3)
    np.testing.assert_allclose(levels(path, info.times), np.arange(16) * 10, atol=8)
    clip = read_frames(path, np.array([3, 9]), info.times[[3, 9]])
    assert (clip.frames[:, :, 10] > 200).all()
    monkeypatch.setattr(sources, "installed", lambda: "")
    with pytest.raises(VideoError, match=r"(?i)codec av01"):
        probe(path)


def test_a_file_cut_while_pyav_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    encode(str(path), "libsvtav1", {"preset": "12", "g": "4"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])
    info = probe(str(path))
    assert 0 < info.frames < 16 and f"{info.frames}" in info.damage


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "x.mp4")
    encode(path, "libx264", {"x264opts": "tff"})
    monkeypatch.setattr(AvCapture, "__init__", lambda *args: pytest.fail("decoded"))
    with pytest.raises(VideoError) as caught:
        probe(path, megapixels=0.01)
    assert caught.value.reason is Reason.TOO_LARGE
