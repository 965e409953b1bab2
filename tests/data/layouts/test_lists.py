"""Lists: four formats with one meaning, segments, and errors that name the line."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import DataConfig
from pipeline.data.layouts import discover

TABLE: list[dict[str, Any]] = [
    {"path": "x/1.mp4", "label": "a", "group": "g1", "split": "train", "start": 0.0, "end": 2.5},
    {"path": "x/1.mp4", "label": "b", "group": "g1", "split": "train", "start": 2.5, "end": None},
    {"path": "ü 2.mp4", "label": "3", "group": None, "split": "val", "start": None, "end": 1.25},
    {"path": "gone.mp4", "label": "NA", "group": None, "split": None, "start": None, "end": None},
]


def save(place: Any, kind: str, rows: list[dict[str, Any]], name: str = "clips") -> None:
    path = place.root / f"{name}.{kind}"
    frame = pd.DataFrame(rows)
    if kind == "parquet":
        frame.to_parquet(path, index=False)
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_says_the_same(place: Any, kind: str) -> None:
    save(place, kind, TABLE)
    expected = [tuple(row.values()) for row in TABLE]
    assert place.rows() == expected
    listing = discover(DataConfig(root=str(place.root / f"clips.{kind}")))
    assert (listing.kind, len(listing.entries)) == ("list", 4)


def test_numbers_are_classes_too(place: Any) -> None:
    save(place, "parquet", [{"path": "1.mp4", "label": 0}, {"path": "2.mp4", "label": 10}])
    assert [row[1] for row in place.rows()] == ["0", "10"]


def test_splits_under_their_other_names(place: Any) -> None:
    place.write("clips.csv", "path,label,split\n1.mp4,a,Training\n2.mp4,b,validation\n3.mp4,a,testing\n")
    assert [row[3] for row in place.rows()] == ["train", "val", "test"]


def test_a_list_beside_the_clips(place: Any) -> None:
    other = place.root.parent / "mine.tsv"
    other.write_text("path\tlabel\nx/1.mp4\ta\nx/2.mp4\tb\n")
    assert [row[:2] for row in place.rows(layout="list", annotations=str(other))] == [
        ("x/1.mp4", "a"),
        ("x/2.mp4", "b"),
    ]


def test_two_lists_are_not_guessed_between(place: Any) -> None:
    save(place, "csv", TABLE)
    save(place, "jsonl", TABLE)
    assert "clips.csv and clips.jsonl" in place.failure()


def test_no_list(place: Any) -> None:
    place.touch("a/1.mp4", "b/1.mp4")
    assert "holds no list" in place.failure(layout="list")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("x.mp4,a,2,1", "line 2: end 1 is not after start 2"),
        ("x.mp4,a,2,2", "line 2: end 2 is not after start 2"),
        ("x.mp4,a,,0", "line 2: end 0 is not after start 0"),
        ("x.mp4,a,-1,", "line 2: start '-1'"),
        ("x.mp4,a,,inf", "line 2: end 'inf'"),
        ("x.mp4,a,nan,", "line 2: start 'nan'"),
        ("x.mp4,a,0:10,", "line 2: start '0:10'"),
        ("x.mp4,a,1,2\n./x.mp4,b,1.0,2", "line 3: ./x.mp4 is listed on line 2 already"),
        ("x.mp4,a,0,\nx.mp4,b,,", "line 3: x.mp4 is listed on line 2 already"),
        ("x.mp4,a,1,2\nx.mp4,b,,", "line 3: x.mp4 is listed as a whole and in part, see line 2"),
        ("x.mp4,a,,\nx.mp4,b,,4", "line 3: x.mp4 is listed as a whole and in part, see line 2"),
    ],
)
def test_segments_that_cannot_be(place: Any, rows: str, expected: str) -> None:
    place.write("clips.csv", f"path,label,start,end\n{rows}\n")
    assert expected in place.failure()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"path": "x", "label": "a"}\n{"path": "y"\n', "line 2: no JSON"),
        ('{"path": "x", "label": "a"}\n[1]\n', "line 2: no JSON object"),
        ('{"path": "x", "label": "a"}\n{"path": "y"}\n', "line 2: the label is empty"),
        ('{"path": "x", "label": ["a"]}\n', "line 1: the label is a list"),
        ('{"path": "x", "class": "a"}\n', "lacks the column label"),
        ("", "no clips"),
    ],
)
def test_json_lines_that_cannot_be(place: Any, text: str, expected: str) -> None:
    place.write("clips.jsonl", text)
    assert expected in place.failure()


def test_parquet_that_cannot_be(place: Any) -> None:
    save(place, "parquet", [{"path": "1.mp4", "label": "a"}, {"path": None, "label": "b"}])
    assert "row 2: the path is empty" in place.failure()
    place.write("clips.parquet", "no parquet")
    assert "cannot be read" in place.failure()


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6, allow_nan=False), st.floats(0.001, 1e4)),
        min_size=1,
        max_size=8,
        unique_by=lambda x: x[0],
    )
)
def test_segments_survive_every_format(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[float, float]]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    rows = [{"path": "f.mp4", "label": f"c{n % 2}", "start": a, "end": a + d} for n, (a, d) in enumerate(parts)]
    rows = [*rows, {"path": "other.mp4", "label": "c1", "start": math.nan, "end": math.nan}]
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_parquet(folder / "a.parquet", index=False)
    expected = [(a, a + d) for a, d in parts] + [(None, None)]
    for name in ("a.csv", "a.parquet"):
        entries = discover(DataConfig(root=str(folder / name))).entries
        assert [(e.start, e.end) for e in entries] == expected
