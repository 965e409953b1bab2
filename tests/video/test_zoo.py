"""The whole zoo of odd files: the count of decoded frames, or one typed error, and never anything else."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import Reason, VideoError
from pipeline.video.reader import probe, read_frames

ZOO = Path(__file__).resolve().parents[2] / "../shared/data/zoo"

pytestmark = pytest.mark.skipif(not ZOO.is_dir(), reason="the folder of odd files is not beside this repository")


def zoo() -> list[dict[str, str]]:
    if not ZOO.is_dir():
        return []
    with open(ZOO / "INDEX.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("row", zoo(), ids=lambda row: row["file"])
def test_every_file_gives_its_frames_or_a_reason(row: dict[str, str]) -> None:
    path, expected = str(ZOO / row["file"]), int(row["cv2_decoded_frames"] or 0)
    if expected == 0:
        with pytest.raises(VideoError) as caught:
            probe(path)
        assert caught.value.reason in set(Reason) - {Reason.NOT_FOUND, Reason.EMPTY}
        return
    info = probe(path)
    assert info.frames == expected
    assert f"{info.width}x{info.height}" == row["cv2_shape"]
    assert np.isfinite(info.times).all() and (np.diff(info.times) > 0).all() and info.times[0] >= 0
    if info.width * info.height <= 1280 * 720:
        wanted = np.unique([0, expected // 2, expected - 1])
        clip = read_frames(path, wanted)
        np.testing.assert_array_equal(clip.times, info.times[wanted])


@pytest.mark.parametrize("name", ["av1.ivf", "av1_video.mkv", "hdr10-av1.mp4", "sample_av1.mp4", "tiny_av1.mp4"])
def test_av1_is_called_unsupported(name: str) -> None:
    with pytest.raises(VideoError) as caught:
        probe(str(ZOO / name))
    assert caught.value.reason is Reason.UNSUPPORTED_CODEC
    assert "av01" in caught.value.detail.lower()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text_named.mp4", Reason.NOT_A_VIDEO),
        ("ac3.mp4", Reason.NOT_A_VIDEO),
        ("random_bytes.avi", Reason.NOT_A_VIDEO),
        ("sample_qt.mp4", Reason.NO_FRAME_DECODED),
        ("invalid-bitstream.webm", Reason.NO_FRAME_DECODED),
    ],
)
def test_other_reasons(name: str, reason: Reason) -> None:
    with pytest.raises(VideoError) as caught:
        probe(str(ZOO / name))
    assert caught.value.reason is reason


def test_variable_frame_rate_keeps_the_stream_s_times() -> None:
    steps = np.diff(probe(str(ZOO / "vfr.mkv")).times)
    assert steps.min() < 0.03 and steps.max() > 0.17
