"""Structure: cut files are found out, whole ones are not, whatever the bytes nothing is raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import Reason, VideoError
from pipeline.video.containers import read_structure
from pipeline.video.reader import VideoInfo, probe
from pipeline.video.writer import write_video

FRAMES = 24
SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small file of each container, with moving noise so that every frame costs bytes."""
    folder = tmp_path_factory.mktemp("whole")
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, 48, 64, 3), dtype=np.uint8)
    contents = {}
    for suffix in SUFFIXES:
        path = str(folder / f"x{suffix}")
        write_video(path, frames, 25.0)
        contents[suffix] = Path(path).read_bytes()
    return contents


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_files_are_whole(whole: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(whole[suffix])
    structure = read_structure(str(path))
    assert (structure.video, structure.damage, structure.cut, structure.marks) == (True, "", False, ())
    assert structure.start == 0.0
    assert probe(str(path)).damage == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(share=st.floats(0.001, 0.999))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_file_never_passes_for_a_shorter_one(
    whole: dict[str, bytes], suffix: str, share: float, tmp_path: Path
) -> None:
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole[suffix][: max(1, int(len(whole[suffix]) * share))])
    reason, info = look(path)
    if info is None:
        assert reason in (Reason.TRUNCATED, Reason.NOT_A_VIDEO, Reason.NO_FRAME_DECODED)
    else:
        assert info.frames == FRAMES or f"{info.frames}" in info.damage


def look(path: Path) -> tuple[Reason | None, VideoInfo | None]:
    """What probing comes to."""
    try:
        return None, probe(str(path))
    except VideoError as error:
        return error.reason, None


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".webm"])
def test_half_a_file_is_truncated_or_damaged(whole: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"half{suffix}"
    path.write_bytes(whole[suffix][: len(whole[suffix]) // 2])
    structure = read_structure(str(path))
    assert structure.cut and "cut off" in structure.damage
    if suffix == ".mp4":  # OpenCV writes the index last
        with pytest.raises(VideoError, match="moov") as caught:
            probe(str(path))
        assert caught.value.reason is Reason.TRUNCATED
    else:
        assert 0 < probe(str(path)).frames < FRAMES


@given(data=st.binary(max_size=400), head=st.sampled_from([0, 12, 40, 64]), kind=st.sampled_from(SUFFIXES))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_raised_for_any_bytes(
    whole: dict[str, bytes], data: bytes, head: int, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(whole[kind][:head] + data)
    read_structure(str(path))


@pytest.mark.parametrize("kind", SUFFIXES)
@given(places=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_raised_for_rotten_bytes(
    whole: dict[str, bytes], kind: str, places: list[tuple[float, int]], tmp_path: Path
) -> None:
    content = bytearray(whole[kind])
    for share, value in places:
        content[int(share * len(content))] = value
    path = tmp_path / "x"
    path.write_bytes(content)
    read_structure(str(path))


@pytest.mark.parametrize("head", [b"FLV\1\5\0\0\0\x09", b"DKIF", b"\x30\x26\xb2\x75", b"\0\0\1\xba", b"ID3", b"\x47"])
@pytest.mark.parametrize("rest", [b"", b"\0" * 300, b"\xff" * 300, bytes(range(256)) * 2])
def test_other_heads_with_nothing_behind(head: bytes, rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(head + rest)
    with pytest.raises(VideoError) as caught:
        probe(str(path))
    assert caught.value.reason is not Reason.NOT_FOUND


AV_FILES = [
    (".mp4", "libx264", {}),
    (".mp4", "libx264", {"movflags": "+faststart"}),
    (".mp4", "libx264", {"movflags": "+frag_keyframe+empty_moov"}),
    (".mkv", "libx264", {}),
    (".webm", "libvpx", {}),
    (".flv", "libx264", {}),
    (".ts", "libx264", {}),
    (".mpg", "mpeg1video", {}),
    (".avi", "libx264", {}),
    (".wmv", "msmpeg4", {}),
]


@pytest.mark.parametrize(("suffix", "codec", "flags"), AV_FILES)
def test_starts_and_cuts_of_what_ffmpeg_writes(suffix: str, codec: str, flags: dict[str, str], tmp_path: Path) -> None:
    """Times are PyAV's, first frame included; where the end is missing and the format can tell, we do."""
    av = pytest.importorskip("av")
    path = tmp_path / f"x{suffix}"
    encode(av, str(path), codec, flags)
    with av.open(str(path)) as container:
        theirs = [frame.time for frame in container.decode(video=0)]
    info = probe(str(path))
    assert info.damage == "" and info.frames == 50
    if suffix != ".avi":
        np.testing.assert_allclose(info.times, theirs, atol=1e-3)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])
    if suffix in (".ts", ".mpg"):
        assert probe(str(path)).frames < 50  # no size is written anywhere: a shorter file is a shorter file
        return
    reason, cut = look(path)
    assert reason is Reason.TRUNCATED if cut is None else cut.damage


def encode(av: Any, path: str, codec: str, flags: dict[str, str], options: dict[str, str] | None = None) -> None:
    """50 frames of noise at 25 per second."""
    rng = np.random.default_rng(3)
    with av.open(path, "w", options=flags) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(50):
            pixels = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_audio_alone_is_no_video(tmp_path: Path) -> None:
    wave = tmp_path / "sound.avi"
    wave.write_bytes(b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40)
    with pytest.raises(VideoError) as caught:
        probe(str(wave))
    assert caught.value.reason is Reason.NO_VIDEO_STREAM
