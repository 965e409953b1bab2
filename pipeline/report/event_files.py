"""Events as files: JSON lines and CSV for programs, SRT and WebVTT for players, which show the labels as subtitles."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.report.events import Event

COLUMNS = ("start", "end", "label", "confidence", "peak", "peak_time")


@dataclass(frozen=True)
class Cue:
    """What a player shows for a while.

    Attributes:
        start, end: whole milliseconds.
        lines: one for each event that goes on then.
    """

    start: int
    end: int
    lines: tuple[str, ...]


def event_row(event: Event) -> dict[str, Any]:
    """An event as its row: seconds to the millisecond, probabilities to four places."""
    row = {name: getattr(event, name) for name in COLUMNS}
    for name, places in (("start", 3), ("end", 3), ("peak_time", 3), ("confidence", 4), ("peak", 4)):
        row[name] = round(float(row[name]), places)
    return row


def write_jsonl(events: Sequence[Event], path: Path) -> None:
    """A line of JSON per event."""
    lines = [json.dumps(event_row(event), ensure_ascii=False, allow_nan=False) + "\n" for event in events]
    path.write_text("".join(lines), encoding="utf-8")


def write_csv(events: Sequence[Event], path: Path) -> None:
    """A header and a row per event."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(event_row(event) for event in events)


def write_srt(events: Sequence[Event], path: Path) -> None:
    """SubRip: numbered cues, a comma before the milliseconds; an empty file where there are no events."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(events), 1)
    ]
    path.write_text("\n".join(blocks), encoding="utf-8")


def write_vtt(events: Sequence[Event], path: Path) -> None:
    """WebVTT (W3C, 2019), for a `<track>` of an HTML page; what would be a tag there is escaped."""
    blocks = [
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n" + "\n".join(map(_escaped, cue.lines)) + "\n"
        for cue in cues(events)
    ]
    path.write_text("\n".join(["WEBVTT\n", *blocks]), encoding="utf-8")


def cues(events: Sequence[Event]) -> list[Cue]:
    """Cues in the order of time of which no two overlap: where several events go on at once, they share a cue.

    Players differ in what they do with overlapping cues; some show one of them.
    """
    spans = [(round(event.start * 1000), round(event.end * 1000), event) for event in events]
    spans = sorted((span for span in spans if span[1] > span[0]), key=lambda span: (span[0], span[2].label))
    bounds = sorted({bound for span in spans for bound in span[:2]})
    found, place = [], 0
    going: list[tuple[int, int, Event]] = []
    for start, end in pairwise(bounds):
        going = [span for span in going if span[1] > start]
        while place < len(spans) and spans[place][0] <= start:
            going.append(spans[place])
            place += 1
        if going:
            found.append(Cue(start, end, tuple(_line(event) for _, _, event in going)))
    return found


def _line(event: Event) -> str:
    """One line, whatever the label has in it: an empty one would end a cue."""
    return f"{' '.join(event.label.split())} {event.confidence:.0%}"


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"
