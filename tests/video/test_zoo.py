"""The whole zoo of odd files: the right verdict, the file's own times, the right pixels, the same after a seek."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import Reason, VideoError
from pipeline.video import reader, sources
from pipeline.video.capture import Capture
from pipeline.video.clip import VideoInfo
from pipeline.video.reader import probe, read_frames
from tests.zoo import OK, rows, verdict

ZOO = Path(__file__).resolve().parents[2] / "../shared/data/zoo"
ROWS = rows(ZOO)
PICTURES = (0, 2, 20)
"""Frames whose pixels are compared."""

LARGE = {"8k24fps_300ms.mp4", "dolbyVision-hdr.MOV"}
"""Files that take seconds: 8K, and an HDR file for which OpenCV computes tone curves."""

pytestmark = pytest.mark.skipif(not ROWS, reason="the folder of odd files is not beside this repository")


@cache
def found(name: str) -> VideoInfo | VideoError:
    try:
        return probe(str(ZOO / name))
    except VideoError as error:
        return error


def status(info: VideoInfo | VideoError) -> str:
    if isinstance(info, VideoError):
        return str(info.reason)
    return str(Reason.TRUNCATED) if info.damage else OK


@cache
def reference(name: str) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """PyAV's times of all frames (NaN for none) and its pictures of a few, RGB, as stored."""
    av = pytest.importorskip("av")
    times: list[float] = []
    pictures: dict[int, np.ndarray] = {}
    with av.open(str(ZOO / name)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        try:
            for index, frame in enumerate(container.decode(video=0)):
                times.append(math.nan if frame.time is None else frame.time)
                if index in PICTURES:
                    pictures[index] = frame.to_ndarray(format="rgb24")
        except av.FFmpegError:
            pass
    return np.array(times), pictures


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_verdict(row: dict[str, str]) -> None:
    pytest.importorskip("av")
    info = found(row["file"])
    assert status(info) == verdict(row, av=True), info
    if isinstance(info, VideoInfo):
        assert info.frames == (int(row["cv2_decoded_frames"]) or int(row["av_frames"]))
        assert np.isfinite(info.times).all() and (np.diff(info.times) > 0).all() and info.times[0] >= 0
        assert "decoded" in info.damage or not info.damage


@pytest.mark.parametrize("row", [r for r in ROWS if verdict(r, True) != verdict(r, False)], ids=lambda row: row["file"])
def test_without_pyav(row: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "installed", lambda: "")
    with pytest.raises(VideoError, match=r'pip install "video-lstm\[av\]"') as caught:
        probe(str(ZOO / row["file"]))
    assert caught.value.reason == verdict(row, av=False) == Reason.UNSUPPORTED_CODEC


@pytest.mark.parametrize("row", [r for r in ROWS if int(r["av_frames"] or 0)], ids=lambda row: row["file"])
def test_times_are_pyavs(row: dict[str, str]) -> None:
    info = found(row["file"])
    if isinstance(info, VideoError):
        pytest.fail(f"{info}")
    theirs, _ = reference(row["file"])
    assert len(theirs) == info.frames
    if np.isfinite(theirs).all() and (np.diff(theirs) > 0).all():
        np.testing.assert_allclose(info.times, theirs, atol=1e-3, rtol=0)
    else:
        assert row["file"] in NO_TIMES


NO_TIMES = {
    # AVI stores no presentation times: PyAV reports those of decoding, which go up and down with B-frames.
    "Falta_inglaterra (1).avi",
    "S001C001P001R001A001_rgb.avi",
    "ctl_ut_hugging.avi",
    "test.avi",
    "trunc_50pct.avi",
    "trunc_90pct.avi",
    # A raw stream has no times; two joined streams begin again; all frames at zero.
    "count.h264",
    "res_change.ts",
    "sample_with_fake_auxiliary_tracks.mp4",
}
"""Files for which PyAV has no increasing times; ours still increase, one step per frame."""


@pytest.mark.parametrize("name", sorted(NO_TIMES))
def test_times_where_there_are_none(name: str) -> None:
    info = found(name)
    assert isinstance(info, VideoInfo)
    steps = np.diff(info.times)
    np.testing.assert_allclose(steps, np.median(steps), atol=1e-6)
    assert info.times[0] <= 4 * info.step


def shown(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """A picture turned by the matrix of the file's track header."""
    a, b, c, d = matrix
    if a == 0:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: d or 1, :: a or 1]


MATRICES = {
    "sample_rotate_and_reflect.mp4": (0, 1, 1, 0),
    "video_90.mov": (0, 1, -1, 0),
    "video_180.mov": (-1, 0, 0, -1),
    "with-gps.mov": (0, 1, -1, 0),
}


@pytest.mark.parametrize("row", [r for r in ROWS if int(r["av_frames"] or 0)], ids=lambda row: row["file"])
def test_pixels_are_pyavs(row: dict[str, str]) -> None:
    """To 3 grey levels on average: the two convert from YUV by different filters and, in 10 bit, dither."""
    name, info = row["file"], found(row["file"])
    if name in LARGE:
        pytest.skip("takes seconds; OpenCV maps the tones of HLG, PyAV leaves them")
    assert isinstance(info, VideoInfo)
    _, pictures = reference(name)
    clip = read_frames(str(ZOO / name), np.array(sorted(pictures)))
    assert clip.frames.shape[1:3] == (info.height, info.width)
    for ours, picture in zip(clip.frames, pictures.values(), strict=True):
        theirs = shown(picture, MATRICES.get(name, (1, 0, 0, 1)))
        if theirs.shape != ours.shape:
            theirs = cv2.resize(theirs, (info.width, info.height), interpolation=cv2.INTER_LINEAR)
        assert np.abs(ours.astype(int) - theirs).mean() < 3


@pytest.mark.parametrize(
    ("name", "size", "marks"),
    [
        ("sar_2x1.mp4", (1280, 360), ("non-square pixels",)),
        ("h264_white_frame_sar_16_9.mp4", (1138, 480), ("non-square pixels",)),
        ("MOV00006.3gp", (192, 144), ("non-square pixels", "variable frame rate")),
        ("edts.mp4", (854, 480), ()),
        ("video_90.mov", (320, 568), ("rotated",)),
        ("video_180.mov", (568, 320), ("rotated",)),
        ("sample_rotate_and_reflect.mp4", (720, 1080), ("rotated",)),
        ("Sony ILCE-7M3 (A7M3).mts", (1920, 1080), ("interlaced",)),
        ("hdr10-av1.mp4", (720, 1280), ("hdr",)),
        ("vfr.mkv", (320, 180), ("variable frame rate",)),
        ("res_change.ts", (320, 180), ("repaired times",)),
        ("demo_skeleton.mp4", (1920, 1080), ()),
    ],
)
def test_marks_and_display_size(name: str, size: tuple[int, int], marks: tuple[str, ...]) -> None:
    pytest.importorskip("av")
    info = found(name)
    assert isinstance(info, VideoInfo)
    assert ((info.width, info.height), info.marks) == (size, marks)


def test_after_a_change_of_size_all_frames_have_the_first_ones() -> None:
    """OpenCV scales them; they are no cut-out."""
    _, pictures = reference("res_change.ts")
    assert pictures[2].shape[:2] == (180, 320) and pictures[20].shape[:2] == (360, 640)
    frame = read_frames(str(ZOO / "res_change.ts"), np.array([20])).frames[0]
    assert np.abs(frame.astype(int) - cv2.resize(pictures[20], (320, 180), interpolation=cv2.INTER_AREA)).mean() < 3


@pytest.mark.parametrize("name", ["text_named.mp4", "ac3.mp4", "trunc_50pct.mp4", "sample_fragmented_clearkey.mp4"])
def test_read_frames_has_probes_reasons(name: str) -> None:
    with pytest.raises(VideoError) as caught:
        read_frames(str(ZOO / name), np.array([0]))
    first = found(name)
    assert isinstance(first, VideoError) and caught.value.reason is first.reason and first.path == caught.value.path


MANY = [r for r in ROWS if int(r["cv2_decoded_frames"] or 0) > 8 and r["file"] not in LARGE]


@pytest.mark.parametrize("row", MANY, ids=lambda row: row["file"])
def test_pixels_after_a_seek_are_those_of_reading_through(row: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    info = found(row["file"])
    assert isinstance(info, VideoInfo)
    rng = np.random.default_rng(len(row["file"]))
    count = info.frames if info.width < 800 else min(info.frames, 40)
    wanted = np.sort(rng.choice(count, 4, replace=False))
    through = read_frames(str(ZOO / row["file"]), wanted)
    monkeypatch.setattr(reader, "FAR", 2)
    monkeypatch.setattr(reader, "FAR_INTRA", 2)
    clip = read_frames(str(ZOO / row["file"]), wanted, info.times[wanted])
    np.testing.assert_array_equal(clip.times, through.times)
    np.testing.assert_array_equal(clip.frames, through.frames)


def test_most_of_the_zoo_can_be_seeked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would pass without a single seek."""
    results: list[bool] = []
    original = Capture.seek

    def seek(capture: Capture, time: float) -> bool:
        results.append(original(capture, time))
        return results[-1]

    monkeypatch.setattr(Capture, "seek", seek)
    monkeypatch.setattr(reader, "FAR", 2)
    for name in ("demo.mp4", "chaplin.mp4", "foreman-hevc-384.mp4", "frames.webm", "edit_list_positive_shift.mp4"):
        info = found(name)
        assert isinstance(info, VideoInfo)
        read_frames(str(ZOO / name), np.array([50, 90]), info.times[[50, 90]])
    assert results == [True] * 10
