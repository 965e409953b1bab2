"""What is to become of each file of the zoo (shared/data/zoo): a rule over the columns of its index, and the few
files that no column tells.

The index says what PyAV and OpenCV did with each file. That PyAV raises half-way is damage; that OpenCV gives
nothing where PyAV gives frames is a codec beyond OpenCV; the rest follows from the streams it lists.
"""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline.errors import Reason

OK = "ok"

EXCEPTIONS = {
    # OpenCV hands out memory it did not write for interlaced pictures, so they count as beyond it.
    "Sony ILCE-7M3 (A7M3).mts": Reason.UNSUPPORTED_CODEC,
    # Cut, and yet PyAV ends without an error.
    "annex-b.mp4": Reason.TRUNCATED,
    "trunc_50pct.avi": Reason.TRUNCATED,
    "trunc_90pct.avi": Reason.TRUNCATED,
    "invalid_userdata.mp4": Reason.TRUNCATED,
    # Cut, and nothing decodes: PyAV sees no more than invalid data.
    "trunc_10pct.mp4": Reason.TRUNCATED,
    "trunc_50pct.mp4": Reason.TRUNCATED,
    "trunc_90pct.mp4": Reason.TRUNCATED,
    "init_truncated.mp4": Reason.TRUNCATED,
    "fixture-isom.mp4": Reason.TRUNCATED,
    "fixture-moov.mov": Reason.TRUNCATED,
    "fixture.3g2": Reason.TRUNCATED,
    "sample_qt.mp4": Reason.TRUNCATED,
    "test_case_1185230.mp4": Reason.TRUNCATED,
    "zero_empty_stsc.mp4": Reason.TRUNCATED,
    # Containers that hold video by their structure, and that FFmpeg does not open: damaged, encrypted, a stub.
    "fixture-corrupt.mkv": Reason.NO_FRAME_DECODED,
    "sample_fragmented_clearkey.mp4": Reason.NO_FRAME_DECODED,
    "FlashVideo.flv": Reason.NO_FRAME_DECODED,
}
"""Expected without PyAV; with it, what is unsupported is ok."""


def verdict(row: dict[str, str], av: bool) -> str:
    """What probing a file must come to.

    Args:
        row: of the index, by column.
        av: whether PyAV is installed.

    Returns:
        "ok", or the value of a `Reason`; "truncated" also for a file that gives some of its frames.
    """
    if row["file"] in EXCEPTIONS:
        expected = EXCEPTIONS[row["file"]]
        return OK if av and expected is Reason.UNSUPPORTED_CODEC else str(expected)
    by_opencv, by_av = int(row["cv2_decoded_frames"] or 0), int(row["av_frames"] or 0)
    if by_opencv:
        return str(Reason.TRUNCATED) if row["av_error"] else OK
    if by_av:
        return OK if av else str(Reason.UNSUPPORTED_CODEC)
    if not row["video_streams"]:
        return str(Reason.NOT_A_VIDEO)
    return str(Reason.NO_VIDEO_STREAM if row["video_streams"] == "0" else Reason.NO_FRAME_DECODED)


def rows(zoo: Path) -> list[dict[str, str]]:
    """The rows of the index; none where the folder is not there."""
    index = zoo / "INDEX.tsv"
    if not index.is_file():
        return []
    with open(index, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
