"""Reading: what a file really holds, frames with their times, one reason for every file that gives none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import Reason, VideoError
from pipeline.video.capture import Capture
from pipeline.video.reader import Clip, VideoInfo, is_image_folder, probe, read_frames
from pipeline.video.writer import write_video


def grey_ramp(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames whose grey level tells their number: 10 * t."""
    levels = np.arange(count, dtype=np.uint8) * 10
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


@pytest.fixture
def ramp(tmp_path: Path) -> str:
    path = str(tmp_path / "ramp.mkv")
    write_video(path, grey_ramp(20), 10.0, "FFV1")
    return path


def reason_of(path: str) -> Reason:
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert caught.value.path == path
    return caught.value.reason


def test_probe_counts_times_and_measures(ramp: str) -> None:
    info = probe(ramp)
    assert (info.frames, info.width, info.height, info.codec) == (20, 64, 48, "ffv1")
    assert info.times.dtype == np.float64
    np.testing.assert_allclose(info.times, np.arange(20) / 10, atol=1e-3)
    assert info.fps == pytest.approx(10.0, rel=1e-3)
    assert info.duration == pytest.approx(2.0, rel=1e-3)


def test_one_frame_has_no_duration() -> None:
    info = VideoInfo(np.zeros(1), 4, 4, "image")
    assert (info.frames, info.duration, info.fps) == (1, 0.0, 0.0)


def test_read_frames_gives_the_wanted_ones(ramp: str) -> None:
    clip = read_frames(ramp, np.array([0, 7, 19]))
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), [0, 70, 190], atol=3)
    np.testing.assert_array_equal(clip.times, probe(ramp).times[[0, 7, 19]])
    assert clip.source == ramp


def test_colours_are_rgb(tmp_path: Path) -> None:
    frames = np.zeros((3, 48, 64, 3), dtype=np.uint8)
    frames[..., 0] = 220
    path = str(tmp_path / "red.mp4")
    write_video(path, frames, 25.0)
    red, green, blue = read_frames(path, np.array([1])).frames[0].mean(axis=(0, 1))
    assert red > 180 and green < 60 and blue < 60


def test_reading_stops_after_the_last_wanted_frame(ramp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[bool] = []
    original = Capture.advance

    def counted(capture: Capture) -> bool:
        steps.append(original(capture))
        return steps[-1]

    monkeypatch.setattr(Capture, "advance", counted)
    read_frames(ramp, np.array([2, 4]))
    assert steps == [True] * 4


def test_a_file_that_became_shorter(ramp: str) -> None:
    with pytest.raises(VideoError, match="ended after 20 frames") as caught:
        read_frames(ramp, np.array([3, 20]))
    assert caught.value.reason is Reason.NO_FRAME_DECODED


@pytest.mark.parametrize("indices", [[], [-1, 2], [3, 3], [5, 2]])
def test_wrong_indices(ramp: str, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="indices"):
        read_frames(ramp, np.array(indices, dtype=np.int64))


@pytest.mark.parametrize("name", ["-dash.mkv", "two words (1).mkv", "line\nbreak.mkv", "имя 视频.mkv", "http:x.mkv"])
def test_names(ramp: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(ramp).parent
    os.link(ramp, folder / name)
    monkeypatch.chdir(folder)
    for path in (name, str(folder / name)):
        assert probe(path).frames == 20
        assert len(read_frames(path, np.array([5])).frames) == 1


def test_a_name_that_is_not_utf8_is_read_like_any_other(ramp: str) -> None:
    folder = os.fsencode(os.path.dirname(ramp))
    path = os.fsdecode(os.path.join(folder, b"bad\xff.mkv"))
    os.link(ramp, path)
    info = probe(path)
    assert info.frames == 20
    clip = read_frames(path, np.array([3, 19]), info.times[[3, 19]])
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), [30, 190], atol=3)


def test_an_error_shows_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = os.path.join(str(tmp_path), os.fsdecode(b"bad\xff.mp4"))
    Path(path).write_bytes(b"x" * 100)
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert caught.value.reason is Reason.NOT_A_VIDEO
    assert caught.value.path.encode("utf-8").endswith(rb"bad\udcff.mp4")


def test_a_file_that_changes_while_it_is_read(ramp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Capture.advance

    def meanwhile(change: Callable[[], object]) -> Callable[[Capture], bool]:
        def advance(capture: Capture) -> bool:
            change()
            return original(capture)

        return advance

    monkeypatch.setattr(Capture, "advance", meanwhile(lambda: os.utime(ramp, ns=(1, os.stat(ramp).st_mtime_ns + 1))))
    assert reason_of(ramp) is Reason.NOT_READABLE
    with pytest.raises(VideoError, match="changed while"):
        read_frames(ramp, np.array([2]))
    monkeypatch.setattr(Capture, "advance", meanwhile(lambda: os.path.exists(ramp) and os.unlink(ramp)))
    assert reason_of(ramp) is Reason.NOT_FOUND


def test_times_tell_that_a_file_is_another_one(ramp: str) -> None:
    times = probe(ramp).times
    read_frames(ramp, np.array([3, 8]), times[[3, 8]])
    with pytest.raises(VideoError, match="frame 8 is at") as caught:
        read_frames(ramp, np.array([3, 8]), times[[3, 9]])
    assert caught.value.reason is Reason.NOT_READABLE
    with pytest.raises(ValueError, match="one per index"):
        read_frames(ramp, np.array([3, 8]), times[:1])


def test_frames_that_are_too_large_are_refused_before_one_is_decoded(
    ramp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = str(tmp_path / "still.png")
    cv2.imwrite(still, np.zeros((1000, 2000, 3), np.uint8))
    assert probe(still, megapixels=2).frames == 1
    monkeypatch.setattr(cv2, "imdecode", lambda *args: pytest.fail("decoded"))
    monkeypatch.setattr(Capture, "picture", lambda self: pytest.fail("decoded"))
    for path, limit in ((ramp, 0.003), (still, 1.99)):
        with pytest.raises(VideoError, match="megapixels") as caught:
            probe(path, megapixels=limit)
        assert caught.value.reason is Reason.TOO_LARGE


def test_a_folder_that_looks_like_a_video(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    assert reason_of(str(tmp_path / "folder.mp4")) is Reason.NOT_A_VIDEO
    cv2.imwrite(str(tmp_path / "folder.mp4" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    assert probe(str(tmp_path / "folder.mp4")).frames == 1


def test_reasons(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.mp4").write_text("not a video, whatever its name says\n" * 50)
    (tmp_path / "text.jpg").write_text("not an image\n" * 50)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason_of(str(tmp_path / "missing.mp4")) is Reason.NOT_FOUND
    assert reason_of(str(tmp_path / "empty.mp4" / "below.mp4")) is Reason.NOT_FOUND
    assert reason_of("nul\0.mp4") is Reason.NOT_FOUND
    assert reason_of(str(tmp_path / "empty.mp4")) is Reason.EMPTY
    assert reason_of(str(tmp_path / "empty.png")) is Reason.EMPTY
    assert reason_of(str(tmp_path / "text.mp4")) is Reason.NOT_A_VIDEO
    assert reason_of(str(tmp_path / "text.jpg")) is Reason.NOT_A_VIDEO
    assert reason_of(str(tmp_path / "folder")) is Reason.NOT_A_VIDEO
    assert reason_of(str(tmp_path / "pipe.mp4")) is Reason.NOT_A_VIDEO


def test_permission(ramp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert reason_of(ramp) is Reason.NOT_READABLE


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "webp", "tif", "TIFF"])
def test_an_image_is_a_clip_of_one_frame(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"still.{suffix}")
    assert cv2.imwrite(path, np.full((30, 41, 3), (10, 100, 200), np.uint8))
    info = probe(path)
    assert (info.frames, info.width, info.height, info.codec) == (1, 41, 30, "image")
    clip = read_frames(path, np.array([0]))
    np.testing.assert_allclose(clip.frames.mean(axis=(0, 1, 2)), [200, 100, 10], atol=4)
    assert clip.times.tolist() == [0.0]
    with pytest.raises(VideoError, match="file changed"):
        read_frames(path, np.array([1]))


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_alpha_and_16_bit_images_become_rgb(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    path = str(tmp_path / "x.png")
    cv2.imwrite(path, np.full(shape, np.iinfo(kind).max // 2, kind))
    frames = read_frames(path, np.array([0])).frames
    assert frames.shape == (1, 20, 30, 3) and frames.dtype == np.uint8
    assert abs(int(frames.mean()) - 127) <= 1


def test_a_folder_of_images_in_natural_order_at_one_size(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in (1, 2, 10):
        size = (40, 60, 3) if index == 1 else (20, 30, 3)
        cv2.imwrite(str(folder / f"frame{index}.png"), np.full(size, index * 20, np.uint8))
    (folder / "notes.txt").write_text("kept aside")
    (folder / "._frame3.png").write_text("a macOS side file")
    assert is_image_folder(str(folder))
    info = probe(str(folder))
    assert (info.frames, info.width, info.height, info.codec) == (3, 60, 40, "image")
    clip = read_frames(str(folder), np.array([1, 2]))
    assert clip.frames.shape == (2, 40, 60, 3)
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), [40, 200])
    np.testing.assert_allclose(clip.times, [1 / 25, 2 / 25])
    with pytest.raises(VideoError, match="ended after 3 frames"):
        read_frames(str(folder), np.array([3]))


def test_a_damaged_image_in_a_folder_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "2.png").write_text("broken")
    with pytest.raises(VideoError, match=r"2\.png") as caught:
        probe(str(tmp_path))
    assert caught.value.reason is Reason.NOT_READABLE


def test_what_is_an_image_folder(tmp_path: Path) -> None:
    assert not is_image_folder(str(tmp_path))
    (tmp_path / "a.PNG").touch()
    assert is_image_folder(str(tmp_path))
    (tmp_path / ".cache").mkdir()
    assert is_image_folder(str(tmp_path))
    (tmp_path / "b.avi").touch()
    assert not is_image_folder(str(tmp_path))
    assert not is_image_folder(str(tmp_path / "a.PNG"))


@pytest.mark.parametrize(
    ("frames", "times"),
    [
        (np.zeros((2, 4, 4, 3)), np.arange(2.0)),
        (np.zeros((2, 4, 4, 1), np.uint8), np.arange(2.0)),
        (np.zeros((0, 4, 4, 3), np.uint8), np.arange(0.0)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.arange(3.0)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0.0, np.nan])),
    ],
)
def test_a_clip_checks_itself(frames: np.ndarray, times: np.ndarray) -> None:
    with pytest.raises(ValueError):
        Clip(frames, times, "x")


def test_a_playlist_does_not_show_the_file_that_it_names(data_root: Path, tmp_path: Path) -> None:
    """FFmpeg follows HLS playlists to any file it may read: one in an archive or in a request would show it."""
    named = data_root / "zoo/mpeg2.ts"
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:10", "#EXTINF:1,", str(named), "#EXT-X-ENDLIST", ""]
    for name in ("list.m3u8", "list.mp4", "list"):
        (tmp_path / name).write_text("\n".join(lines))
        with pytest.raises(VideoError, match=r"not a video.*a playlist, which names other files"):
            probe(str(tmp_path / name))
    assert len(probe(str(named)).times) > 1
