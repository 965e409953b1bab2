"""Kinetics, Something-Something and Jester."""

from __future__ import annotations

import json
from typing import Any

import pytest

HEAD = "label,youtube_id,time_start,time_end,split,is_cc\n"


def kinetics(place: Any) -> None:
    place.write(
        "../annotations/train.csv", HEAD + '"air drumming",-3B32lodo2M,59,69,train,0\nski,abc_DEF-123,0,10,train,0\n'
    )
    place.write(
        "../annotations/validate.csv", HEAD + "ski,gone0000000,5,15,validate,0\nski,whole000000,5.5,15,validate,0\n"
    )
    place.write("../annotations/test.csv", "youtube_id,time_start,time_end,split\nxxxxxxxxxxx,1,11,test\n")
    place.touch("air drumming/-3B32lodo2M_000059_000069.mp4", "abc_DEF-123_000000_000010.mkv", "ski/whole000000.mp4")


def test_kinetics(place: Any) -> None:
    kinetics(place)
    place.touch("ski/stranger.mp4")
    listing = place.listing(layout="kinetics")
    assert sorted(place.rows(layout="kinetics")) == [
        ("abc_DEF-123_000000_000010.mkv", "ski", "abc_DEF-123", "train", None, None),
        ("air drumming/-3B32lodo2M_000059_000069.mp4", "air drumming", "-3B32lodo2M", "train", None, None),
        ("ski/gone0000000_000005_000015.mp4", "ski", "gone0000000", "val", None, None),
        ("ski/whole000000.mp4", "ski", "whole000000", "val", 5.5, 15.0),
    ]
    assert listing.unused == ["ski/stranger.mp4"]
    assert [note.split()[0] for note in listing.notes] == ["1", "1", "1"]
    assert "no label" in listing.notes[0] and "gone0000000" in listing.notes[1] and "left out" in listing.notes[2]


def test_one_annotation_file_of_kinetics_alone(place: Any) -> None:
    kinetics(place)
    place.write("../mine.csv", HEAD + "ski,whole000000,5,15,test,0\nsit,abc_DEF-123,0,10,test,0\n")
    rows = place.rows(layout="kinetics", annotations=str(place.root.parent / "mine.csv"))
    assert [row[1:4] for row in rows] == [("ski", "whole000000", "test"), ("sit", "abc_DEF-123", "test")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("ski,abc,10,5,train,0", "line 2: give a youtube_id and time_start < time_end"),
        ("ski,,1,5,train,0", "line 2: give a youtube_id"),
        ("ski,abc,x,5,train,0", "line 2: time_start 'x'"),
        ("ski,abc,1,5,dev,0", "line 2: split 'dev'"),
        ("ski,abc,1,5,train,0\nsit,abc,1,5,train,0", "line 3: abc has another label or split elsewhere"),
        ("ski,abc,1,5,train,0\nsit,def,1,5,train,0", "none of the 2 clips"),
        ("", "label no clip"),
    ],
)
def test_kinetics_that_cannot_be(place: Any, lines: str, expected: str) -> None:
    place.write("train.csv", HEAD + lines + "\n")
    assert expected in place.failure(layout="kinetics")


def test_kinetics_without_annotations(place: Any) -> None:
    place.touch("a/1.mp4", "b/2.mp4")
    place.write("other.csv", "id,text\n")
    assert "no annotations of Kinetics" in place.failure(layout="kinetics")


def something(place: Any) -> None:
    rows = {
        "train": [
            {"id": "78687", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]},
            {"id": "42326", "label": "closing jar", "template": "Closing [something]", "placeholders": ["jar"]},
        ],
        "validation": [
            {"id": "74225", "label": "closing door", "template": "Closing [something]", "placeholders": ["door"]}
        ],
        "test": [{"id": "1420"}, {"id": "3"}],
    }
    for name, items in rows.items():
        place.write(f"../labels/{name}.json", json.dumps(items))
    place.write("../labels/labels.json", json.dumps({"Closing something": "0", "Holding something": "1"}))
    place.write("../labels/test-answers.csv", "3;Holding something\n")
    place.touch("78687.webm", "42326.webm", "1420.webm", "99.webm", "3.webm")


def test_something_something(place: Any) -> None:
    something(place)
    listing = place.listing(layout="something")
    assert sorted(place.rows(layout="something")) == [
        ("3.webm", "Holding something", None, "test", None, None),
        ("42326.webm", "Closing something", None, "train", None, None),
        ("74225.webm", "Closing something", None, "val", None, None),
        ("78687.webm", "Holding something", None, "train", None, None),
    ]
    assert listing.unused == ["99.webm", "1420.webm"]
    assert listing.notes[0] == "1 ids of the annotations have no label and are left out"
    assert "74225.webm" in listing.notes[1]


def test_something_that_cannot_be(place: Any) -> None:
    something(place)
    place.write("../labels/labels.json", json.dumps({"Closing something": "0"}))
    assert "'Holding something' is no class" in place.failure(layout="something")
    place.write("../labels/labels.json", "{")
    assert "labels.json cannot be read" in place.failure(layout="something")
    (place.root / "../labels/labels.json").unlink()
    place.write("../labels/validation.json", json.dumps([{"id": "78687", "template": "Closing [something]"}]))
    assert "78687 has another label or split elsewhere" in place.failure(layout="something")
    place.write("../labels/validation.json", json.dumps([{"label": "x"}]))
    assert "validation.json, item 1: no object with an id" in place.failure(layout="something")
    assert "no annotations of Something" in place.failure(layout="something", annotations=str(place.root))


def test_jester(place: Any) -> None:
    place.write("../jester-v1-labels.csv", "Swiping Left\nThumb Up\nPointing, then waving\n")
    place.write("../jester-v1-train.csv", "1;Swiping Left\n2;Thumb Up\n")
    place.write("../jester-v1-validation.csv", "10;Thumb Up\n")
    place.write("../jester-v1-test.csv", "11\n")
    place.touch(*(f"{clip}/{image:05d}.jpg" for clip in (1, 2, 10, 11) for image in (1, 2)))
    assert place.rows(layout="something") == [
        ("1", "Swiping Left", None, "train", None, None),
        ("2", "Thumb Up", None, "train", None, None),
        ("10", "Thumb Up", None, "val", None, None),
    ]
    assert place.listing(layout="something").unused == ["11"]
    place.write("../jester-v1-validation.csv", "10;Thumb Up\n12;Pointing, then waving\n13;Thumb Up\n")
    assert [row[0] for row in place.rows(layout="something")] == ["1", "2", "10", "13"]
    place.write("../jester-v1-train.csv", "1,Swiping Left\n")
    assert "is not ID;LABEL" in place.failure(layout="something")
