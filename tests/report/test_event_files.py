"""Events as files, read back by parsers as strict as the formats: SubRip and WebVTT, CSV, JSON lines."""

from __future__ import annotations

import csv
import html
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.report.event_files import COLUMNS, cues, write_csv, write_jsonl, write_srt, write_vtt
from pipeline.report.events import Event

EVENTS = [
    Event("left", 0.0, 1.2345, 0.91, 0.97, 0.5),
    Event("a <b> & -->\n\nc", 59.9996, 61.5, 0.7, 0.8, 60.0),
    Event("right", 3599.5, 36000.007, 0.655, 0.9, 4000.0),
    Event("left", 3700.0, 3702.0, 0.8, 0.9, 3701.0),
    Event("gone", 5.0, 5.0001, 0.8, 0.9, 5.0),
]

Cues = list[tuple[int, int, list[str]]]


def milliseconds(text: str, point: str) -> int:
    found = re.fullmatch(rf"(\d\d):([0-5]\d):([0-5]\d){re.escape(point)}(\d\d\d)", text)
    assert found, text
    hours, minutes, seconds, rest = map(int, found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def span(line: str, point: str) -> tuple[int, int]:
    start, arrow, end = line.split(" ")
    assert arrow == "-->"
    return milliseconds(start, point), milliseconds(end, point)


def read_srt(text: str) -> Cues:
    found = []
    for number, block in enumerate(text.rstrip("\n").split("\n\n") if text else [], 1):
        counted, times, *lines = block.split("\n")
        assert counted == str(number) and lines and all(lines)
        found.append((*span(times, ","), lines))
    return found


def read_vtt(text: str) -> Cues:
    head, *blocks = text.rstrip("\n").split("\n\n")
    assert head == "WEBVTT" and text.startswith("WEBVTT\n")
    found = []
    for block in blocks:
        times, *lines = block.split("\n")
        assert lines and all(lines) and not any("<" in line or "-->" in line for line in lines)
        assert all(re.fullmatch(r"(?:[^&]|&(?:amp|lt|gt);)*", line) for line in lines)
        found.append((*span(times, "."), [html.unescape(line) for line in lines]))
    return found


def test_subtitles_parse_back_and_no_two_cues_overlap(tmp_path: Path) -> None:
    write_srt(EVENTS, tmp_path / "a.srt")
    write_vtt(EVENTS, tmp_path / "a.vtt")
    expected = [
        (0, 1234, ["left 91%"]),
        (60_000, 61_500, ["a <b> & --> c 70%"]),
        (3_599_500, 3_700_000, ["right 66%"]),
        (3_700_000, 3_702_000, ["right 66%", "left 80%"]),
        (3_702_000, 36_000_007, ["right 66%"]),
    ]
    for found in (read_srt((tmp_path / "a.srt").read_text("utf-8")), read_vtt((tmp_path / "a.vtt").read_text("utf-8"))):
        assert found == expected
        assert all(end <= start for (_, end, _), (start, _, _) in pairwise(found))


def test_events_that_touch_or_nest_share_out_the_time_between_them() -> None:
    events = [Event(label, start, end, 0.5, 0.5, start) for label, start, end in
              (("a", 0, 4), ("b", 1, 2), ("c", 2, 3), ("d", 4, 5))]  # fmt: skip
    assert [(cue.start, cue.end, "".join(line[0] for line in cue.lines)) for cue in cues(events)] == [
        (0, 1000, "a"), (1000, 2000, "ab"), (2000, 3000, "ac"), (3000, 4000, "a"), (4000, 5000, "d"),
    ]  # fmt: skip


def test_no_events_are_files_too(tmp_path: Path) -> None:
    for write, name in ((write_srt, "a.srt"), (write_vtt, "a.vtt"), (write_csv, "a.csv"), (write_jsonl, "a.jsonl")):
        write([], tmp_path / name)
    assert read_srt((tmp_path / "a.srt").read_text()) == read_vtt((tmp_path / "a.vtt").read_text()) == []
    assert (tmp_path / "a.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert (tmp_path / "a.jsonl").read_text() == ""


def test_tables_say_the_same(tmp_path: Path) -> None:
    write_csv(EVENTS, tmp_path / "a.csv")
    write_jsonl(EVENTS, tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(line) for line in lines] == [list(COLUMNS)] * len(EVENTS) == [list(row) for row in rows]
    for event, line, row in zip(EVENTS, lines, rows, strict=True):
        assert line["label"] == row["label"] == event.label
        for name in set(COLUMNS) - {"label"}:
            assert line[name] == float(row[name]) == pytest.approx(getattr(event, name), abs=5e-4)
