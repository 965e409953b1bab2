"""The catalog: a row for every file, remembered by content, written and read without loss."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.data import catalog, examine
from pipeline.data.layouts import Entry
from pipeline.errors import DataError, Reason
from pipeline.video.reader import VideoInfo
from pipeline.video.writer import write_video


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
    assert [len(times) for times in table["times"]] == table["frames"].tolist()
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
    catalog.write(table, path)
    back = catalog.read(path)
    pd.testing.assert_frame_equal(back.drop(columns="times"), table.drop(columns="times"))
    for one, two in zip(back["times"], table["times"], strict=True):
        np.testing.assert_array_equal(one, two)
    assert not list(tmp_path.glob("*.tmp"))


def test_csv_round_trip_without_times(table: pd.DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / "catalog.csv")
    catalog.write(table, path)
    pd.testing.assert_frame_equal(catalog.read(path), table.drop(columns="times"))


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


def test_what_was_probed_is_only_hashed(
    folder: Path, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[str] = []
    original = examine.probe

    def counted(path: str) -> VideoInfo:
        probed.append(os.path.basename(path))
        return original(path)

    monkeypatch.setattr(examine, "probe", counted)
    again = catalog.build(entries(folder), cache=str(tmp_path / "cache"))
    assert probed == ["empty.mp4", "missing.mp4"]
    pd.testing.assert_frame_equal(again.drop(columns="times"), table.drop(columns="times"))
    shutil.copy(folder / "b.avi", folder / "a.mp4")
    assert catalog.build(entries(folder), cache=str(tmp_path / "cache"))["frames"][1] == 8


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "other decoder", "no times", "wrong digest"])
def test_a_damaged_cache_file_is_made_again(folder: Path, table: pd.DataFrame, tmp_path: Path, damage: str) -> None:
    digest = table["digest"][1]
    path = tmp_path / "cache" / "probe" / digest[:2] / f"{digest}.video.json"
    whole = json.loads(path.read_text())
    if damage == "other decoder":
        damage = json.dumps(whole | {"decoder": "opencv 0"})
    elif damage == "no times":
        damage = json.dumps(whole | {"finding": whole["finding"] | {"times": []}})
    elif damage == "wrong digest":
        damage = json.dumps(whole | {"finding": whole["finding"] | {"digest": "0", "times": [9.0]}})
    path.write_text(damage)
    again = catalog.build(entries(folder), cache=str(tmp_path / "cache"))
    pd.testing.assert_frame_equal(again.drop(columns="times"), table.drop(columns="times"))
    assert json.loads(path.read_text()) == whole


def test_the_same_bytes_as_video_and_as_image(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((20, 30, 3), np.uint8))
    shutil.copy(tmp_path / "x.jpg", tmp_path / "x.mp4")
    names = [Entry(str(tmp_path / name), "a", None, None) for name in ("x.jpg", "x.mp4", "x.jpg")]
    table = catalog.build(names, cache=str(tmp_path / "cache"))
    assert table["codec"].tolist() == ["image", "MJPG", "image"]


def test_a_cache_that_cannot_be_written(folder: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    again = catalog.build(entries(folder), cache=str(tmp_path / "file"))
    pd.testing.assert_frame_equal(again.drop(columns="times"), table.drop(columns="times"))


def test_the_pool_gives_the_same_table(folder: Path, tmp_path: Path) -> None:
    many = entries(folder) * 3
    ticks: list[int] = []
    pooled = catalog.build(many, workers=2, progress=ticks.append, cache=str(tmp_path / "one"))
    alone = catalog.build(many, workers=1, cache=str(tmp_path / "two"))
    pd.testing.assert_frame_equal(pooled.drop(columns="times"), alone.drop(columns="times"))
    assert ticks == [1] * len(many)


def crash_on_text(path: str, cache: str) -> examine.Finding:
    """Stands for a decoder that ends the process; runs in the workers."""
    if path.endswith("text.mp4"):
        os._exit(11)
    return examine.examine(path, cache)


def test_a_decoder_that_crashes_costs_one_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "examine", crash_on_text)
    monkeypatch.setattr(catalog, "_pool", fork_pool)
    many = [entry for entry in entries(folder) if "text" not in entry.path] * 2 + [entries(folder)[4]] * 2
    ticks: list[int] = []
    table = catalog.build(many, workers=2, progress=ticks.append, cache=str(tmp_path / "cache"))
    assert table["detail"].tolist()[-2:] == ["the decoder crashed on it"] * 2
    assert table["status"].tolist()[-2:] == [Reason.NOT_READABLE] * 2
    assert (table["status"] == "ok").sum() == 10 and len(ticks) == len(many)


def fork_pool(workers: int) -> ProcessPoolExecutor:
    """A pool whose workers know this test file: a fresh process could not import it by name."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))


def test_where_results_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEO_LSTM_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert catalog.cache_dir() == "/one"
    monkeypatch.delenv("VIDEO_LSTM_CACHE")
    assert catalog.cache_dir() == "/two/video-lstm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert catalog.cache_dir() == "/home/me/.cache/video-lstm"
