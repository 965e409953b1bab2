from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from pipeline.errors import ConfigError, DataError
from pipeline.report.frame_metrics import evaluate_frames
from pipeline.report.metrics import evaluate_predictions
from pipeline.report.number_metrics import evaluate_numbers
from pipeline.report.tables import COLUMNS, TASK_COLUMNS, check_suffix, per_class_table, write_flat, write_results
from pipeline.report.text import print_metrics

ROWS: list[dict[str, Any]] = [
    {
        "path": "clips/a.mp4",
        "status": "ok",
        "label": 'grün, "1"',
        "probability": 0.9,
        "top_k": [{"label": 'grün, "1"', "probability": 0.9}, {"label": "b", "probability": 0.1}],
        "margin": 0.8,
        "frames": 16,
        "duration": 2.5,
        "model": "3f2a",
        "seconds": 0.02,
    },
    {"status": "not a video", "path": "clips/b.txt"},
]
WHOLE = [{column: row.get(column) for column in COLUMNS} for row in ROWS]


def metrics(n: int = 12, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    paths = [f"{index}.mp4" for index in range(n)]
    found = evaluate_predictions(
        paths, np.arange(n) % 3, rng.dirichlet(np.ones(4), n), ["a", "b", "[red]c", "never"], paths, n, []
    )
    return {**found, **changes}


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.csv"
    write_results(ROWS, path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert json.loads(rows[0]["top_k"]) == ROWS[0]["top_k"]
    assert rows[0]["label"] == ROWS[0]["label"]
    assert float(rows[0]["margin"]) == 0.8
    assert rows[1] == {**dict.fromkeys(COLUMNS, ""), "path": "clips/b.txt", "status": "not a video"}


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "results.JSONL"
    write_results(ROWS, path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == WHOLE
    assert tuple(json.loads(lines[1])) == COLUMNS


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    write_results(ROWS, path)
    assert parquet.read_table(path).to_pylist() == WHOLE


def test_parquet_types_do_not_depend_on_the_rows(tmp_path: Path) -> None:
    schemas = []
    for name, rows in (("some", ROWS), ("failed", ROWS[1:]), ("none", [])):
        write_results(rows, tmp_path / f"{name}.parquet")
        schemas.append(parquet.read_schema(tmp_path / f"{name}.parquet"))
    assert schemas[0].equals(schemas[1])
    assert schemas[0].equals(schemas[2])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_name_that_is_not_utf8_does_not_spoil_the_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    write_results([{"path": os.fsdecode(b"caf\xe9.mp4"), "status": "empty"}, ROWS[0]], path)
    if suffix == ".csv":
        table = pd.read_csv(path)
    elif suffix == ".jsonl":
        table = pd.read_json(path, lines=True)
    else:
        table = pd.read_parquet(path)
    assert list(table["path"]) == [r"caf\xe9.mp4", "clips/a.mp4"]


def test_another_suffix_is_refused_before_the_work() -> None:
    assert check_suffix("a/b.Parquet") == ".parquet"
    for name in ("results.xlsx", "results"):
        with pytest.raises(ConfigError, match=r"\.csv, \.jsonl or \.parquet"):
            check_suffix(name)


def test_a_failed_write_keeps_the_old_table_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write_results(ROWS, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results([{"path": "a", "status": "ok", "margin": float("nan")}], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"results\.csv: cannot be written"):
        write_results(ROWS, tmp_path / "file" / "results.csv")


def test_an_unknown_column_is_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="probabilty"):
        write_results([{"path": "a", "probabilty": 1.0}], tmp_path / "r.csv")


@pytest.mark.skipif(os.name == "nt", reason="permission bits of POSIX")
def test_the_table_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    write_results(ROWS, tmp_path / "r.csv")
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE((tmp_path / "r.csv").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_per_class_table(tmp_path: Path) -> None:
    found = metrics()
    per_class_table(found, tmp_path / "per_class.csv")
    table = pd.read_csv(tmp_path / "per_class.csv")
    assert list(table.columns[:3]) == ["class", "support", "precision"]
    assert list(table["class"]) == ["a", "b", "[red]c", "never"]
    np.testing.assert_allclose(table["f1_low"][0], found["per_class"][0]["f1_low"])
    missing = found["per_class"][3]["f1"] is None
    assert bool(np.isnan(table["f1"][3])) == missing


def test_print_metrics_says_everything_beside_the_accuracy() -> None:
    found = metrics()
    text = print_metrics(found)
    assert text.splitlines()[0] == (
        f"top-1      {found['top1']:.3f} [{found['top1_low']:.2f}, {found['top1_high']:.2f}]"
    )
    assert "top-4      1.000" in text
    assert "12/12 clips, 12 groups" in text
    assert "0.333 (always answering 'a')" in text
    assert "[red]c" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_print_metrics_counts_what_it_does_not_name() -> None:
    failed = [{"path": f"x{i}\udcff.mp4", "reason": "empty"} for i in range(13)]
    text = print_metrics(metrics(failed=failed, n=12, expected=25))
    assert r"x9\xff.mp4: empty" in text
    assert "x10" not in text
    assert "not scored 3 more" in text
    text.encode("utf-8")


def test_print_metrics_of_one_group_says_so() -> None:
    paths = ["a", "b"]
    found = evaluate_predictions(paths, np.array([0, 1]), np.eye(2), ["x", "y"], ["g", "g"], 2, [])
    text = print_metrics(found)
    assert text.splitlines()[0].startswith("top-1      1.000 [")
    assert "one group" in text
    assert "1 group\n" in text


SEGMENTS = [
    {"start": 0.0, "end": 1.5, "label": 'reach, "far"', "probability": 0.75},
    {"start": 1.5, "end": 2.0, "label": "pour", "probability": 0.5},
]
OVER_TIME: dict[str, list[dict[str, Any]]] = {
    "frame_label": [
        {"path": "a.mp4", "status": "ok", "label": "pour", "segments": SEGMENTS},
        {"path": "b", "status": "empty"},
    ],
    "regression": [{"path": "a.mp4", "status": "ok", "value": 0.1}, {"path": "b", "status": "empty"}],
    "frame_regression": [
        {"path": "a.mp4", "status": "ok", "values": [{"time": 0.0, "value": 1 / 3}, {"time": 0.5, "value": -2.0}]},
        {"path": "b", "status": "empty"},
    ],
}


@pytest.mark.parametrize("task", list(OVER_TIME))
def test_every_task_has_its_table_in_each_form(tmp_path: Path, task: str) -> None:
    rows, columns = OVER_TIME[task], TASK_COLUMNS[task]
    whole = [{column: row.get(column) for column in columns} for row in rows]
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_results(rows, tmp_path / f"r{suffix}", columns)
    assert parquet.read_table(tmp_path / "r.parquet").to_pylist() == whole
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()] == whole
    with (tmp_path / "r.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == columns and second["status"] == "empty"
    for column in set(columns) & {"segments", "values"}:
        assert json.loads(first[column]) == rows[0][column] and second[column] == ""


def test_the_flat_table_has_a_row_per_item(tmp_path: Path) -> None:
    path = write_flat(OVER_TIME["frame_label"], "segments", tmp_path / "labels.v2.jsonl")
    assert path == tmp_path / "labels.v2.segments.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ['reach, "far"', "pour"]
    assert [(row["path"], float(row["start"]), float(row["end"])) for row in rows] == [
        ("a.mp4", 0.0, 1.5),
        ("a.mp4", 1.5, 2.0),
    ]
    values = write_flat(OVER_TIME["frame_regression"], "values", tmp_path / "v.csv")
    table = pd.read_csv(values, float_precision="round_trip")
    assert list(table.columns) == ["path", "time", "value"] and table["value"].tolist() == [1 / 3, -2.0]


def test_print_metrics_of_labels_over_time_and_of_numbers() -> None:
    labels, p = [np.array([0, 1, -1]), np.array([1, 1, 0])], np.eye(2)[[0, 1, 0]]
    frames = evaluate_frames(["a", "b"], labels, [p, p], ["x", "[red]y"], ["g", "h"], 2, [])
    lines = print_metrics(frames).splitlines()
    assert [line[:14].strip() for line in lines[:3]] == ["frame accuracy", "macro F1", "edit score"]
    assert lines[0].startswith(f"frame accuracy {frames['frame_accuracy']:.3f} [")
    assert "5 labelled moments, 1 without a label" in "\n".join(lines) and "[red]y" in "\n".join(lines)
    numbers = [np.array([1234.5]), np.array([2000.0])]
    text = print_metrics(evaluate_numbers("regression", ["a", "b"], numbers, numbers[::-1], 1500.0, ["g", "h"], 2, []))
    assert text.splitlines()[0].split() == ["MAE", "765.5", "[766,", "766]"]
    assert "always answering the training mean, 1500" in text and "majority" not in text


def test_rows_that_come_one_by_one_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rows never stand in memory: an iterator is enough, and Parquet gets them in groups."""
    from pyarrow import parquet

    from pipeline.report import tables

    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 4)
    for suffix in ("csv", "jsonl", "parquet"):
        rows = ({"path": f"{i}.mp4", "status": "ok", "probability": i / 10} for i in range(10))
        tables.write_results(rows, tmp_path / f"rows.{suffix}")
    file = parquet.ParquetFile(tmp_path / "rows.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 2]
    assert file.read().column("path").to_pylist() == [f"{i}.mp4" for i in range(10)]
    assert (tmp_path / "rows.csv").read_text().count("\n") == 11
