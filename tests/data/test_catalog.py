"""The catalog: a row for every file, remembered by content, written and read without loss."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.config import LimitsConfig
from pipeline.config.folders import cache_dir
from pipeline.data import catalog, examine, findings
from pipeline.data.layouts import Entry
from pipeline.errors import DataError, Reason
from pipeline.video.reader import VideoInfo
from pipeline.video.writer import write_video
from tests.hostile import hostile_environment


def clip(path: Path, level: int, count: int = 5) -> None:
    frames = np.full((count, 48, 64, 3), level, np.uint8)
    frames[:, :, : 2 * level % 60 + 2] = 255 - level
    write_video(str(path), frames, 10.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    clip(root / "a.mp4", 40)
    clip(root / "b.avi", 90, 8)
    shutil.copy(root / "a.mp4", root / "copy of a.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("words " * 100)
    (root / "frames").mkdir()
    for index in range(3):
        cv2.imwrite(str(root / f"frames/{index}.png"), np.full((20, 30, 3), index, np.uint8))
    cv2.imwrite(str(root / "still.jpg"), np.full((20, 30, 3), 9, np.uint8))
    return root


NAMES = ("b.avi", "a.mp4", "copy of a.mp4", "empty.mp4", "text.mp4", "missing.mp4", "frames", "still.jpg")


def entries(root: Path) -> list[Entry]:
    return [
        Entry(
            str(root / name),
            "x" if index % 2 else "NA",
            None if index else "g1",
            "train" if index == 1 else None,
        )
        for index, name in enumerate(NAMES)
    ]


@pytest.fixture
def table(folder: Path, tmp_path: Path) -> pd.DataFrame:
    return catalog.build(entries(folder), cache=str(tmp_path / "cache"))


def test_a_row_for_every_entry_in_order(table: pd.DataFrame, folder: Path) -> None:
    assert tuple(table.columns) == catalog.COLUMNS
    assert [os.path.basename(path) for path in table["path"]] == list(NAMES)
    assert table["status"].tolist() == ["ok", "ok", "ok", "empty", "not a video", "not found", "ok", "ok"]
    assert table["frames"].tolist() == [8, 5, 5, 0, 0, 0, 3, 1]
    assert table["width"].tolist() == [64, 64, 64, 0, 0, 0, 30, 30]
    assert table["duration"].round(3).tolist() == [0.8, 0.5, 0.5, 0, 0, 0, 0.12, 0]
    assert table["group"].isna().tolist() == [False] + [True] * 7
    digests = table["digest"].tolist()
    assert digests[1] == digests[2] and len(set(digests)) == 6
    assert digests[3] == digests[5] == ""
    assert digests[4] and len(digests[4]) == 64


def test_summary(table: pd.DataFrame) -> None:
    result = catalog.summary(table)
    assert result == {
        "files": 8,
        "ok": 5,
        "failed": 3,
        "reasons": {"empty": 1, "not a video": 1, "not found": 1},
    }
    assert set(result["reasons"]) <= set(Reason)


def test_parquet_round_trip(table: pd.DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / "catalog.parquet")
    catalog.write(table, path, str(tmp_path / "cache"))
    back = catalog.read(path)
    pd.testing.assert_frame_equal(back.drop(columns="times"), table)
    for frames, duration, times in zip(back["frames"], back["duration"], back["times"], strict=True):
        assert len(times) == frames and (frames < 2 or times[-1] < duration)
    assert not list(tmp_path.glob("*.tmp"))


def test_csv_round_trip_without_times(table: pd.DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / "catalog.csv")
    catalog.write(table, path)
    pd.testing.assert_frame_equal(catalog.read(path), table)


def test_what_is_no_catalog(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("none.parquet", "bad.parquet", "other.csv", "x.json"):
        with pytest.raises(DataError, match=name):
            catalog.read(str(tmp_path / name))
    with pytest.raises(DataError):
        catalog.write(table, str(tmp_path / "x.json"))


def test_the_dataset_digest(table: pd.DataFrame) -> None:
    value = catalog.digest(table)
    assert catalog.digest(table.sample(frac=1, random_state=1)) == value
    assert catalog.digest(table.assign(path="elsewhere")) == value
    assert catalog.digest(table.assign(label="y")) != value
    assert catalog.digest(table.iloc[1:]) != value


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is probed in this process."""
    names: list[str] = []
    original = examine.probe

    def counted(path: str, **options: Any) -> VideoInfo:
        names.append(os.path.basename(path))
        return original(path, **options)

    monkeypatch.setattr(examine, "probe", counted)
    return names


def test_what_was_probed_is_only_hashed(folder: Path, table: pd.DataFrame, tmp_path: Path, probed: list[str]) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    again = catalog.build(entries(moved), cache=str(tmp_path / "cache"), workers=0)
    assert probed == ["empty.mp4", "missing.mp4"]
    pd.testing.assert_frame_equal(again.drop(columns="path"), table.drop(columns="path"))
    shutil.copy(moved / "b.avi", moved / "a.mp4")
    assert catalog.build(entries(moved), cache=str(tmp_path / "cache"))["frames"][1] == 8


def test_what_did_not_change_is_not_even_hashed(
    folder: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "SETTLED_NS", 0)
    catalog.build(entries(folder), cache=str(tmp_path / "cache"), workers=0)
    hashed: list[str] = []
    monkeypatch.setattr(examine, "content_digest", hashed.append)
    again = catalog.build(entries(folder), cache=str(tmp_path / "cache"), workers=0)
    assert hashed == []
    pd.testing.assert_frame_equal(again, table)


def test_a_file_that_changes_while_it_is_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = examine.probe

    def slow(path: str, **options: Any) -> VideoInfo:
        info = original(path, **options)
        with open(path, "ab") as file:
            file.write(b"more")
        return info

    monkeypatch.setattr(examine, "probe", slow)
    one = [Entry(str(folder / "a.mp4"), "x", None, None)]
    row = catalog.build(one, cache=str(tmp_path / "cache"), workers=0).iloc[0]
    assert (row["status"], row["digest"]) == (Reason.NOT_READABLE, "") and "changed" in row["detail"]
    monkeypatch.undo()
    assert catalog.build(one, cache=str(tmp_path / "cache"), workers=0)["status"][0] == "ok"


def test_the_same_bytes_as_video_and_as_image(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((20, 30, 3), np.uint8))
    shutil.copy(tmp_path / "x.jpg", tmp_path / "x.mp4")
    names = [Entry(str(tmp_path / name), "a", None, None) for name in ("x.jpg", "x.mp4", "x.jpg")]
    table = catalog.build(names, cache=str(tmp_path / "cache"))
    assert table["codec"].tolist() == ["image", "MJPG", "image"]


def test_a_cache_that_cannot_be_written(folder: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    again = catalog.build(entries(folder), cache=str(tmp_path / "file"))
    pd.testing.assert_frame_equal(again, table)


def test_processes_give_the_same_table(folder: Path, tmp_path: Path) -> None:
    many = entries(folder) * 3
    ticks: list[int] = []
    pooled = catalog.build(many, workers=2, progress=ticks.append, cache=str(tmp_path / "one"))
    alone = catalog.build(many, workers=0, cache=str(tmp_path / "two"))
    pd.testing.assert_frame_equal(pooled, alone)
    assert sum(ticks) == len(many)


@pytest.mark.parametrize(
    ("name", "reason", "limits"),
    [
        ("crash.mp4", Reason.CRASHED, LimitsConfig()),
        ("hang.mp4", Reason.TIMED_OUT, LimitsConfig(seconds=2.0)),
        ("hog.mp4", Reason.OUT_OF_MEMORY, LimitsConfig(memory=300)),
    ],
)
def test_a_hostile_file_costs_one_row(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: Reason, limits: LimitsConfig
) -> None:
    for key, value in hostile_environment(tmp_path / "hostile").items():
        monkeypatch.setenv(key, value)
    clip(folder / name, 30)
    many = [*entries(folder)[:3], Entry(str(folder / name), "x", None, None), *entries(folder)[3:]]
    for _ in range(2):  # a lost file is tried again the next time: the machine may only have been busy
        table = catalog.build(many, catalog.Policy(limits), workers=2, cache=str(tmp_path / "cache"))
        assert table["status"][3] == reason
        assert (table["status"] == "ok").sum() == 5 and len(table) == len(many)


def test_limits_and_partial_files_are_judged_when_the_table_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probed: list[str]
) -> None:
    clip(tmp_path / "whole.avi", 50, 20)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    both = [Entry(str(tmp_path / name), "x", None, None) for name in ("whole.avi", "cut.avi")]

    def build(**options: Any) -> pd.DataFrame:
        return catalog.build(both, catalog.Policy(**options), workers=0, cache=str(tmp_path / "cache"))

    assert build()["status"].tolist() == ["ok", Reason.TRUNCATED]
    accepted = build(partial="accept")
    assert accepted["status"].tolist() == ["ok", "ok"]
    assert 0 < accepted["frames"][1] < 20 and accepted["marks"].tolist() == ["", "truncated"]
    assert build(limits=LimitsConfig(min_frames=21))["status"].tolist() == [Reason.TOO_SHORT, Reason.TRUNCATED]
    assert build(limits=LimitsConfig(megapixels=0.001))["status"].tolist() == [Reason.TOO_LARGE, Reason.TOO_LARGE]
    assert sorted(set(probed)) == ["cut.avi", "whole.avi"] and len(probed) == 2


def test_a_segment_is_a_clip_of_its_own(folder: Path, tmp_path: Path) -> None:
    path = str(folder / "b.avi")  # 8 frames at 10 per second
    bounds = [(None, None), (0.2, 0.5), (0.5, None), (None, 0.2), (0.7, 0.75), (0.72, 0.78), (3.0, 4.0)]
    parts = [Entry(path, "x", None, None, start, end) for start, end in bounds]
    table = catalog.build(parts, cache=str(tmp_path / "cache"))
    assert table["frames"].tolist() == [8, 3, 3, 2, 1, 0, 0]
    assert table["first"].tolist() == [0, 2, 5, 0, 7, 0, 0]
    assert table["status"].tolist() == ["ok"] * 5 + [Reason.TOO_SHORT] * 2
    assert "3 s to 4 s" in table["detail"][6]
    assert table["clip"].nunique() == 7 and table["digest"].nunique() == 1 and table["clip"][0] == table["digest"][0]
    catalog.write(table, tmp_path / "c.parquet", str(tmp_path / "cache"))
    times = catalog.read(tmp_path / "c.parquet")["times"]
    np.testing.assert_allclose(times[1], [0.2, 0.3, 0.4], atol=1e-3)
    np.testing.assert_allclose(times[4], [0.7], atol=1e-3)


KILLED = """
import os, sys
from pipeline.data import catalog
from pipeline.data.layouts import Entry
from pathlib import Path
entries = [Entry(str(p), "a", None, None) for p in sorted(Path(sys.argv[1]).iterdir())]
catalog.COMMIT_EVERY = 4
done = 0
def count(n):
    global done
    done += n
    if done >= 12:
        os.kill(os.getpid(), 9)
catalog.build(entries, workers=1, cache=sys.argv[2], progress=count)
"""


def test_a_killed_ingest_goes_on_where_it_was(tmp_path: Path, probed: list[str]) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(24):
        clip(many / f"{number:02d}.avi", number * 7, 3)
    done = subprocess.run([sys.executable, "-c", KILLED, str(many), str(tmp_path / "cache")], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    table = catalog.build(
        [Entry(str(path), "a", None, None) for path in sorted(many.iterdir())], workers=0, cache=str(tmp_path / "cache")
    )
    assert (table["status"] == "ok").all()
    assert 8 <= len(probed) <= 16  # 12 were done when it was killed, and 4 at most were not yet safe


def test_ten_thousand_unchanged_files_are_checked_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probed: list[str]
) -> None:
    monkeypatch.setattr(findings, "SETTLED_NS", 0)
    clip(tmp_path / "clip.avi", 50, 3)
    data, paths = (tmp_path / "clip.avi").read_bytes(), []
    for number in range(10_000):
        paths.append(tmp_path / f"{number}.avi")
        paths[-1].write_bytes(data)
    listed = [Entry(str(path), "a", None, None) for path in paths]
    catalog.build(listed, workers=0, cache=str(tmp_path / "cache"))
    assert len(probed) <= catalog.COMMIT_EVERY + 1  # the same content; seen by the reader once it is committed
    started = time.perf_counter()
    catalog.build(listed, workers=0, cache=str(tmp_path / "cache"))
    assert time.perf_counter() - started < 5


def test_where_results_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEO_LSTM_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_dir() == "/one"
    monkeypatch.delenv("VIDEO_LSTM_CACHE")
    assert cache_dir() == "/two/video-lstm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_dir() == "/home/me/.cache/video-lstm"
