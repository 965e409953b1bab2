from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.config import LimitsConfig
from pipeline.data.catalog import Policy
from pipeline.errors import ConfigError, DataError
from pipeline.report.tables import COLUMNS
from pipeline.stages.classify import classify
from pipeline.stages.find import find_files
from pipeline.stages.predict import Predictor
from pipeline.video.writer import write_video


def red_frame() -> np.ndarray:
    return np.full((32, 48, 3), (40, 50, 200), dtype=np.uint8)  # OpenCV writes BGR


@pytest.fixture(scope="module")
def archive(tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have them: folders in folders, an image, a folder of images, text, hidden files, a bad one."""
    folder = tmp_path_factory.mktemp("an archive [1]")
    clips = sorted(tiny_clips.rglob("*g01_c0[12]*"))
    for place, clip in zip(("z", "a/b", "a", ".hidden"), clips, strict=False):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / f"clip{clip.suffix}").write_bytes(clip.read_bytes())
    cv2.imwrite(str(folder / "a" / "still.png"), red_frame())
    (folder / "frames").mkdir()
    for index in range(5):
        cv2.imwrite(str(folder / "frames" / f"{index:03d}.jpg"), red_frame())
    (folder / "notes.txt").write_text("no clip")
    (folder / "a" / ".thumb.png").write_bytes(b"hidden")
    (folder / "bad.mp4").write_bytes(b"no video")
    return folder


def shown(archive: Path, rows: list[dict[str, Any]]) -> list[str]:
    return [str(Path(row["path"]).relative_to(archive)) for row in rows]


def test_a_folder_is_searched_to_any_depth_in_the_order_of_names(predictor: Predictor, archive: Path) -> None:
    result = classify(predictor, [str(archive)], workers=0)
    suffix = {path.parent.name: path.suffix for path in archive.rglob("clip.*")}
    expected = [
        f"a/b/clip{suffix['b']}",
        f"a/clip{suffix['a']}",
        "a/still.png",
        "bad.mp4",
        "frames",
        f"z/clip{suffix['z']}",
    ]
    assert shown(archive, result.table) == expected
    assert (result.rows, result.ok, result.failed) == (6, 5, 1)
    assert result.reasons == {"not a video": 1} and result.out is None
    rows = {Path(row["path"]).name: row for row in result.table}
    reason = {"status": "not a video", "note": "it does not open"}
    assert rows["bad.mp4"] == {"path": str(archive / "bad.mp4"), **reason, "model": predictor.digest}
    assert rows["frames"]["label"] == rows["still.png"]["label"] == "red"
    assert rows["still.png"]["frames"] == 1


def test_a_row_says_what_the_model_thinks_and_how_sure_it_is(predictor: Predictor, tiny_clips: Path) -> None:
    clip = next((tiny_clips / "green").iterdir())
    (row,) = classify(predictor, [str(clip)], top_k=2, workers=0).table
    assert set(row) == set(COLUMNS)
    assert row["label"] == "green" and row["status"] == "ok" and row["model"] == predictor.digest
    assert row["frames"] in (3, 4) and row["duration"] > 0 and row["seconds"] > 0
    first, second = row["top_k"]
    assert first == {"label": "green", "probability": row["probability"]}
    assert row["margin"] == row["probability"] - second["probability"] >= 0
    (all_of_them,) = classify(predictor, [str(clip)], top_k=99, workers=0).table
    assert sum(entry["probability"] for entry in all_of_them["top_k"]) == pytest.approx(1)


def test_files_globs_lists_and_image_folders_keep_the_order_given_each_file_once(archive: Path, tmp_path: Path) -> None:
    bad, frames, still = str(archive / "bad.mp4"), str(archive / "frames"), str(archive / "a" / "still.png")
    assert find_files([frames, bad, still, bad]) == [frames, bad, still]
    pattern = str(archive).replace("[", "[[]") + "/**/*.png"
    assert find_files([bad, pattern]) == [bad, still]
    assert find_files([str(archive / "a" / "s") + "till.png"]) == [still]
    listed = tmp_path / "list.txt"
    listed.write_text(f"# what came in today\n\n{bad}\nrelative.avi\n  {still}  \n")
    assert find_files([str(listed)]) == [bad, str(tmp_path / "relative.avi"), still]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path: Path) -> None:
    (tmp_path / "clip[1].avi").write_bytes(b"x")
    assert find_files([str(tmp_path / "clip[1].avi")]) == [str(tmp_path / "clip[1].avi")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.mp4", "no such file or folder"),
        ("*.mp4", "no such file or folder"),
        ("empty", "no video and no image"),
        ("empty.txt", "the list names no file"),
    ],
)
def test_a_source_that_gives_nothing_is_an_error_that_names_it(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match=message) as error:
        find_files([str(tmp_path / name)])
    assert str(tmp_path / name) in str(error.value)


def test_a_listed_file_that_does_not_exist_is_a_row(predictor: Predictor, archive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"gone.avi\n{archive / 'a' / 'still.png'}\n")
    result = classify(predictor, [str(listed)], workers=0)
    assert [row["status"] for row in result.table] == ["not found", "ok"]


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row["top_k"] = json.loads(row["top_k"]) if row["top_k"] else None
        row["probability"] = float(row["probability"]) if row["probability"] else None
    return rows


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pd.read_parquet(path).astype(object).to_dict("records")  # type: ignore[assignment]
    return [
        {key: None if not isinstance(v, np.ndarray) and pd.isna(v) else v for key, v in row.items()} for row in rows
    ]


@pytest.mark.parametrize(("suffix", "read"), [(".csv", read_csv), (".jsonl", read_jsonl), (".parquet", read_parquet)])
def test_the_table_holds_every_row_and_every_digit(
    predictor: Predictor, archive: Path, tmp_path: Path, suffix: str, read: Callable[[Path], list[dict[str, Any]]]
) -> None:
    out = tmp_path / f"labels{suffix}"
    result = classify(predictor, [str(archive)], out, workers=0)
    assert result.out == str(out)
    rows = read(out)
    assert [tuple(row) for row in rows] == [COLUMNS] * 6
    for row, expected in zip(rows, result.table, strict=True):
        assert (row["path"], row["status"]) == (expected["path"], expected["status"])
        assert (row["label"] or None) == expected.get("label")
        assert row["probability"] == expected.get("probability")
        assert [dict(entry) for entry in row["top_k"]] == expected["top_k"] if expected["status"] == "ok" else True


def test_when_nothing_can_be_classified_the_table_is_there_and_it_is_an_error(
    predictor: Predictor, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.jsonl"
    with pytest.raises(DataError, match="none of the 1 files could be classified; the reasons are in"):
        classify(predictor, [str(archive / "bad.mp4")], out, workers=0)
    assert [row["status"] for row in read_jsonl(out)] == ["not a video"]


def test_another_suffix_is_refused_before_any_work(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.xlsx"):
        classify(predictor, [str(tmp_path / "nowhere")], tmp_path / "labels.xlsx")


def test_many_failures_are_counted_and_a_few_are_named(
    predictor: Predictor, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        (tmp_path / f"{number}.avi").write_bytes(b"")
    result = classify(predictor, [str(tmp_path), str(archive / "frames")], workers=2)
    assert (result.ok, result.failed, result.reasons) == (1, 8, {"empty": 8})
    written = capsys.readouterr()
    assert written.err.count("not classified:") == 5 and "... and 3 more" in written.err and written.out == ""


def test_a_damaged_file_is_labelled_and_marked_or_left_out(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = np.full((40, 48, 64, 3), (200, 50, 40), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None]
    write_video(str(tmp_path / "whole.avi"), frames, 10.0)
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    cut, whole = classify(predictor, tmp_path).table
    assert (cut["status"], whole["status"], whole["note"]) == ("ok", "ok", "")
    assert "frames decoded" in cut["note"] and 0 < cut["duration"] < 0.8 * whole["duration"]
    assert "1 damaged files were labelled" in capsys.readouterr().err
    rejected = classify(predictor, tmp_path, policy=Policy(LimitsConfig(), "reject")).table
    assert [row["status"] for row in rejected] == ["truncated", "ok"] and rejected[0]["note"] == cut["note"]
    assert classify(predictor, [tmp_path / "whole.avi"], policy=Policy(LimitsConfig(min_frames=40))).ok == 1
    with pytest.raises(DataError, match="none of the 1 files"):
        classify(predictor, [tmp_path / "whole.avi"], policy=Policy(LimitsConfig(min_frames=41)))
