"""Animations: whole pictures at the file's own times."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import Reason, VideoError
from pipeline.video.animation import open_animation
from pipeline.video.reader import VIDEO_SUFFIXES, probe, read_frames

DELAYS = [100, 50, 0, 200, 30, 500]
TIMES = [0, 0.1, 0.15, 0.25, 0.45, 0.48]


def pictures() -> list[np.ndarray]:
    """RGBA: a red square that moves over nothing."""
    frames = []
    for step in range(len(DELAYS)):
        frame = np.zeros((40, 60, 4), np.uint8)
        frame[5:20, 5 + 6 * step : 20 + 6 * step] = (200, 30 * step, 50, 255)
        frames.append(frame)
    return frames


def on_black() -> np.ndarray:
    return np.stack([frame[..., :3] for frame in pictures()])


def save(path: Path, **options: object) -> None:
    first, *rest = [Image.fromarray(frame) for frame in pictures()]
    first.save(path, save_all=True, append_images=rest, **options)


@pytest.mark.parametrize("disposal", [0, 2, 3])
def test_gif(tmp_path: Path, disposal: int) -> None:
    path = tmp_path / "x.gif"
    save(path, duration=DELAYS, disposal=disposal)
    info = probe(str(path), thumbnails=True)
    assert (info.frames, info.width, info.height, info.codec, info.damage) == (6, 60, 40, "gif", "")
    np.testing.assert_allclose(info.times, TIMES)
    clip = read_frames(str(path), np.arange(6), info.times)
    with Image.open(path) as image:
        expected = []
        for page in range(6):
            image.seek(page)
            below = Image.new("RGBA", image.size, (0, 0, 0, 255))
            below.alpha_composite(image.convert("RGBA"))
            expected.append(np.array(below)[..., :3])
    np.testing.assert_array_equal(clip.frames, expected)
    if disposal == 2:
        np.testing.assert_array_equal(clip.frames, on_black())


@pytest.mark.parametrize(("name", "codec"), [("x.png", "apng"), ("x.apng", "apng"), ("x.webp", "webp")])
def test_png_and_webp(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    options = {"lossless": True} if codec == "webp" else {"format": "PNG"}
    save(path, duration=DELAYS, **options)
    info = probe(str(path))
    assert (info.frames, info.codec) == (6, codec)
    np.testing.assert_allclose(info.times, TIMES)
    np.testing.assert_array_equal(read_frames(str(path), np.array([1, 5])).frames, on_black()[[1, 5]])


def test_opencv_composes_the_same(tmp_path: Path) -> None:
    for name in ("x.gif", "x.png"):
        path = tmp_path / name
        save(path, duration=DELAYS, disposal=1)
        _, animation = cv2.imdecodeanimation(np.fromfile(path, np.uint8))
        theirs = [cv2.cvtColor(frame, cv2.COLOR_BGRA2RGB) for frame in animation.frames]
        np.testing.assert_array_equal(read_frames(str(path), np.arange(6)).frames, theirs)


def test_the_hidden_first_image_of_a_png_is_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    save(path, duration=DELAYS[1:], default_image=True)
    info = probe(str(path))
    assert info.frames == 5
    np.testing.assert_array_equal(read_frames(str(path), np.array([0])).frames, on_black()[[1]])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pages_of_a_tiff(tmp_path: Path, kind: type) -> None:
    path = str(tmp_path / "x.tiff")
    largest = np.iinfo(kind).max
    cv2.imwritemulti(path, [np.full((20, 30, 3), largest // 4 * k, kind) for k in range(4)])
    info = probe(path)
    assert (info.frames, info.width, info.height, info.codec) == (4, 30, 20, "tiff")
    np.testing.assert_allclose(info.times, np.arange(4) / 25)
    expected = np.arange(4) * (largest // 4) * 255 / largest
    np.testing.assert_allclose(read_frames(path, np.arange(4)).frames.mean(axis=(1, 2, 3)), expected, atol=1)


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.tif"])
def test_a_still_stays_an_image(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    cv2.imwrite(path, np.zeros((8, 8, 3), np.uint8))
    assert open_animation(path) is None
    assert (probe(path).frames, probe(path).codec) == (1, "image")


def test_a_cut_gif(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    rng = np.random.default_rng(0)
    first, *rest = [Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)) for _ in range(6)]
    first.save(path, save_all=True, append_images=rest, duration=100)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.7)])
    info = probe(str(path))
    assert 0 < info.frames < 6 and "damaged" in info.damage
    path.write_bytes(content[:900])
    with pytest.raises(VideoError) as caught:
        probe(str(path))
    assert caught.value.reason is Reason.NO_FRAME_DECODED


def test_too_large_and_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    save(path, duration=100)
    with pytest.raises(VideoError) as caught:
        probe(str(path), megapixels=0.002)
    assert caught.value.reason is Reason.TOO_LARGE
    path.write_text("no image at all\n" * 30)
    with pytest.raises(VideoError) as caught:
        probe(str(path))
    assert caught.value.reason is Reason.NOT_A_VIDEO


def test_gif_and_apng_are_searched_for() -> None:
    assert {".gif", ".apng"} <= VIDEO_SUFFIXES
