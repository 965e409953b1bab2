"""Lists of the tasks over time and of values: four formats with one meaning, and errors that name file and line."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import DataConfig
from pipeline.data.layouts import discover
from pipeline.data.target_text import read_target
from pipeline.data.targets import Curve, Segments
from pipeline.errors import ConfigError, DataError
from tests.data.layouts.test_lists import save

SEGMENTS: list[dict[str, Any]] = [
    {"path": "b.mp4", "start": 1.5, "end": None, "label": "up", "group": "g2", "split": "test"},
    {"path": "a.mp4", "start": None, "end": 0.5, "label": "3", "group": None, "split": "train"},
    {"path": "b.mp4", "start": 0.0, "end": 1.5, "label": "left", "group": None, "split": None},
]
CURVE: list[dict[str, Any]] = [
    {"path": "a.mp4", "time": 2.0, "value": -1.5, "group": "g", "split": None},
    {"path": "a.mp4", "time": 0.0, "value": 3, "group": "g", "split": None},
    {"path": "b.mp4", "time": 0.25, "value": 1e-3, "group": None, "split": "val"},
]


def texts(place: Any, task: str, **options: Any) -> list[tuple[Any, ...]]:
    entries = discover(DataConfig(root=str(place.root), **options), task).entries
    assert all((entry.label, entry.start, entry.end) == ("", None, None) for entry in entries)
    return [(entry.path.rpartition("/")[2], json.loads(entry.target), entry.group, entry.split) for entry in entries]


def failure(place: Any, task: str, error: type[Exception] = DataError, **options: Any) -> str:
    with pytest.raises(error) as caught:
        discover(DataConfig(root=str(place.root), **options), task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_says_the_same(place: Any, kind: str) -> None:
    save(place, kind, SEGMENTS)
    assert texts(place, "frame_label") == [
        ("b.mp4", {"segments": [[0.0, 1.5, "left"], [1.5, None, "up"]]}, "g2", "test"),
        ("a.mp4", {"segments": [[0.0, 0.5, "3"]]}, None, "train"),
    ]
    save(place, kind, CURVE)
    assert texts(place, "frame_regression") == [
        ("a.mp4", {"curve": [[0.0, 3.0], [2.0, -1.5]]}, "g", None),
        ("b.mp4", {"curve": [[0.25, 1e-3]]}, None, "val"),
    ]
    save(place, kind, [{"path": "a.mp4", "value": 2}, {"path": "b.mp4", "value": -0.5}])
    assert [row[:2] for row in texts(place, "regression")] == [("a.mp4", {"value": 2.0}), ("b.mp4", {"value": -0.5})]


def test_the_value_of_a_part_of_a_file(place: Any) -> None:
    place.write("clips.csv", "path,value,start,end\na.mp4,1,0,2\na.mp4,2,2,\n")
    entries = discover(DataConfig(root=str(place.root)), "regression").entries
    assert [(e.target, e.start, e.end) for e in entries] == [
        ('{"value": 1.0}', 0.0, 2.0),
        ('{"value": 2.0}', 2.0, None),
    ]


def test_what_no_segment_covers_is_background_where_that_is_asked_for(place: Any) -> None:
    place.write("clips.csv", "path,start,end,label\na.mp4,1,2,x\na.mp4,2,2.5,y\na.mp4,4,5,x\nb.mp4,,,y\n")
    assert texts(place, "frame_label", background="none")[0][1]["segments"] == [
        [0.0, 1.0, "none"], [1.0, 2.0, "x"], [2.0, 2.5, "y"], [2.5, 4.0, "none"], [4.0, 5.0, "x"], [5.0, None, "none"],
    ]  # fmt: skip
    assert texts(place, "frame_label", background="none")[1][1]["segments"] == [[0.0, None, "y"]]
    assert "data.background is for the task frame_label" in failure(place, "label", ConfigError, background="none")


def test_sums_of_decimal_fractions_do_not_overlap(place: Any) -> None:
    place.write("clips.csv", f"path,start,end,label\na.mp4,0,{0.1 + 0.2!r},x\na.mp4,0.3,1,y\n")
    target = read_target(discover(DataConfig(root=str(place.root)), "frame_label").entries[0].target, "", {"x": 0})
    assert isinstance(target, Segments) and target.at(np.array([0.29, 0.3])).tolist() == [0, -1]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("a.mp4,0,2,x\na.mp4,1.5,3,y", "line 3: a.mp4 has another label from 1.5 s already, on line 2"),
        ("a.mp4,1,2,x\nb.mp4,0,9,x\n./a.mp4,0,1.5,x", "line 2: a.mp4 has another label from 1 s already, on line 4"),
        ("a.mp4,,,x\na.mp4,3,4,y", "line 3: a.mp4 has another label from 3 s already, on line 2"),
        ("a.mp4,2,1,x", "line 2: end 1 is not after start 2"),
        ("a.mp4,0,1,", "line 2: the label is empty"),
        (",0,1,x", "line 2: the path is empty"),
        ("a.mp4,0:01,,x", "line 2: start '0:01'"),
    ],
)
def test_segments_that_cannot_be(place: Any, rows: str, expected: str) -> None:
    path = place.write("clips.csv", f"path,start,end,label\n{rows}\n")
    assert f"{path}, {expected}" in failure(place, "frame_label")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("a.mp4,0,fast", "line 2: value 'fast'; give a finite number"),
        ("a.mp4,0,", "line 2: value ''; give a finite number"),
        ("a.mp4,0,inf", "line 2: value 'inf'"),
        ("a.mp4,0,nan", "line 2: value 'nan'"),
        ("a.mp4,,1", "line 2: the time is empty"),
        ("a.mp4,-1,1", "line 2: time '-1'"),
        ("a.mp4,1,1\na.mp4,2,1\na.mp4,1.0,2", "line 4: a.mp4 has a value at 1 s already, on line 2"),
    ],
)
def test_curves_that_cannot_be(place: Any, rows: str, expected: str) -> None:
    path = place.write("clips.csv", f"path,time,value\n{rows}\n")
    assert f"{path}, {expected}" in failure(place, "frame_regression")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("a.mp4,1.2.3", "line 2: value '1.2.3'"),
        ("a.mp4,1\na.mp4,2", "line 3: a.mp4 is listed on line 2 already"),
        ("a.mp4,1e999", "line 2: value '1e999'"),
    ],
)
def test_values_that_cannot_be(place: Any, rows: str, expected: str) -> None:
    place.write("clips.csv", f"path,value\n{rows}\n")
    assert expected in failure(place, "regression")


def test_rows_of_a_file_agree_on_its_group_and_split(place: Any) -> None:
    head = "path,time,value,group,split\n"
    place.write("clips.csv", head + "a.mp4,0,1,,train\na.mp4,1,1,g1,\na.mp4,2,1,g2,\n")
    assert "line 4: a.mp4 has the group 'g2', on line 3 'g1'" in failure(place, "frame_regression")
    place.write("clips.csv", head + "a.mp4,0,1,,train\na.mp4,1,1,g1,test\n")
    assert "line 3: a.mp4 has the split 'test', on line 2 'train'" in failure(place, "frame_regression")


def test_another_task_or_layout_than_the_data_is_for(place: Any) -> None:
    place.write("clips.csv", "path,label\na.mp4,x\n")
    assert "lacks the column value" in failure(place, "regression")
    assert "lacks the column time and value" in failure(place, "frame_regression")
    place.write("clips.csv", "path,label\n")
    assert "lists no clips; add lines of path,label" in failure(place, "frame_label")
    (place.root / "clips.csv").unlink()
    place.touch("x/a.mp4", "y/b.mp4")
    assert "task frame_label needs a list of path,start,end,label" in failure(place, "frame_label")


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9)), min_size=1, max_size=8, unique_by=lambda x: x[0]),
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_targets_survive_every_format_and_any_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[float, float]], lengths: list[float], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    curve = [{"path": "f.mp4", "time": time, "value": value} for time, value in points]
    edges = np.concatenate([[0.0], np.cumsum(lengths)]).tolist()
    parts = [
        {"path": "f.mp4", "start": a, "end": b, "label": f"c{n % 3}"}
        for n, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    parts[-1]["end"] = math.nan
    for rows, name in ((curve, "curve"), (parts, "parts")):
        random.shuffle(rows)
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet", index=False)
    numbers = {"c0": 0, "c1": 1, "c2": 2}
    for kind in ("csv", "parquet"):
        (entry,) = discover(DataConfig(root=str(folder / f"curve.{kind}")), "frame_regression").entries
        found = read_target(entry.target, "", {})
        assert isinstance(found, Curve)
        assert list(zip(found.times.tolist(), found.values.tolist(), strict=True)) == sorted(points)
        (entry,) = discover(DataConfig(root=str(folder / f"parts.{kind}")), "frame_label").entries
        segments = read_target(entry.target, "", numbers)
        assert isinstance(segments, Segments)
        assert segments.starts.tolist() == edges[:-1] and segments.ends.tolist() == [*edges[1:-1], math.inf]
        assert segments.classes.tolist() == [n % 3 for n in range(len(lengths))]
