"""Lists of the tasks whose target is no class per clip; `docs/tasks.md` shows each.

frame_label         path,label[,start,end,group,split]      a row per segment of a file
regression          path,value[,group,split,start,end]      a row per clip
frame_regression    path,time,value[,group,split]           a row per known moment of a file
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config import DataConfig
from pipeline.data.layouts.entries import Entry, Listing
from pipeline.data.layouts.lists import Row, list_place, listed, read_rows, row_bounds, row_entry, row_text, seconds
from pipeline.data.target_text import Segment, curve_text, segments_text, value_text
from pipeline.errors import DataError

SAME_TIME = 1e-6
"""Seconds. Bounds that are this close are one moment: sums of decimal fractions differ by less."""


@dataclass(frozen=True)
class _File:
    """The rows of one file.

    Attributes:
        list: the path of the list.
        name: the file, as the list calls it.
        entry: its path, group and split, on which all rows agree.
        rows: where each stands, and its values.
    """

    list: str
    name: str
    entry: Entry
    rows: Sequence[Row]


def segment_list(root: str, data: DataConfig) -> Listing:
    """Task frame_label: segments that do not overlap; between them nothing, or the class `data.background`.

    Raises:
        DataError: two segments of a file at one moment, or what `listed` refuses.
    """
    background = (data.background or "").strip()
    return _over_time(root, data, ("path", "label"), lambda file: segments_text(_segments(file, background)))


def curve_list(root: str, data: DataConfig) -> Listing:
    """Task frame_regression: values at given times, in any order.

    Raises:
        DataError: a time or value that is none, or one time twice, or what `listed` refuses.
    """
    return _over_time(root, data, ("path", "time", "value"), lambda file: curve_text(_points(file)))


def value_list(root: str, data: DataConfig) -> Listing:
    """Task regression: a clip, which may be a part of a file, and its value.

    Raises:
        DataError: a value that is no finite number, or what `listed` refuses.
    """

    def read(path: str, where: str, row: dict[str, Any], base: str) -> Entry:
        entry = row_entry(path, where, row, base)
        return replace(entry, target=value_text(_number(path, where, "value", row.get("value"))))

    return listed(root, data, ("path", "value"), read)


LISTS: dict[str, Callable[[str, DataConfig], Listing]] = {
    "label": listed,
    "frame_label": segment_list,
    "regression": value_list,
    "frame_regression": curve_list,
}
"""Per task, what reads its lists."""

COLUMNS = {
    "label": "path,label",
    "frame_label": "path,start,end,label",
    "regression": "path,value",
    "frame_regression": "path,time,value",
}


def _over_time(root: str, data: DataConfig, needed: Sequence[str], target: Callable[[_File], str]) -> Listing:
    """One entry per file, in the order of their first rows."""
    path, base = list_place(root, data)
    gathered: dict[str, list[Row]] = {}
    for where, row in read_rows(path, needed):
        entry = row_entry(path, where, row, base)
        gathered.setdefault(os.path.normpath(entry.path), []).append((where, row))
    if not gathered:
        raise DataError(f"{path} lists no clips; add lines of {','.join(needed)}")
    files = [_file(path, base, rows) for rows in gathered.values()]
    return Listing([replace(file.entry, target=target(file)) for file in files], [], "list")


def _file(path: str, base: str, rows: Sequence[Row]) -> _File:
    """The rows of one file, once they agree; a group or split that a row leaves out is that of the others."""
    name = str(rows[0][1]["path"]).strip()
    entry = row_entry(path, rows[0][0], rows[0][1], base)
    said = {"group": (rows[0][0], entry.group), "split": (rows[0][0], entry.split)}
    for where, row in rows[1:]:
        other = row_entry(path, where, row, base)
        for column, value in (("group", other.group), ("split", other.split)):
            line, known = said[column]
            if known is None:
                said[column] = (where, value)
            elif value is not None and value != known:
                raise DataError(
                    f"{path}, {where}: {name} has the {column} '{value}', on {line} '{known}'; give a file one {column}"
                )
    whole = replace(entry, group=said["group"][1], split=said["split"][1], start=None, end=None)
    return _File(path, name, whole, rows)


def _segments(file: _File, background: str) -> list[Segment]:
    rows: list[tuple[float, float, str, str]] = []
    for where, row in file.rows:
        label = row_text(file.list, where, "label", row.get("label"))
        if not label:
            raise DataError(f"{file.list}, {where}: the label is empty; fill it in or remove the line")
        start, end = row_bounds(file.list, where, row)
        rows.append((start or 0.0, math.inf if end is None else end, label, where))
    rows.sort(key=lambda row: row[:2])
    found: list[Segment] = []
    reached, line = 0.0, ""
    for start, end, label, where in rows:
        if start < reached - SAME_TIME:
            raise DataError(
                f"{file.list}, {where}: {file.name} has another label from {start:g} s already, on {line}; "
                "a moment has one label: change start or end, or remove one"
            )
        if background and start > reached + SAME_TIME:
            found.append((reached, start, background))
        found.append((start, None if math.isinf(end) else end, label))
        reached, line = end, where
    if background and math.isfinite(reached):
        found.append((reached, None, background))
    return found


def _points(file: _File) -> list[tuple[float, float]]:
    points: dict[float, tuple[float, str]] = {}
    for where, row in file.rows:
        time = seconds(file.list, where, "time", row.get("time"))
        if time is None:
            raise DataError(f"{file.list}, {where}: the time is empty; give seconds after the first frame")
        if time in points:
            raise DataError(
                f"{file.list}, {where}: {file.name} has a value at {time:g} s already, on {points[time][1]}; remove one"
            )
        points[time] = (_number(file.list, where, "value", row.get("value")), where)
    return [(time, points[time][0]) for time in sorted(points)]


def _number(path: str, where: str, name: str, value: Any) -> float:
    text = row_text(path, where, name, value)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{path}, {where}: {name} '{text}'; give a finite number, such as 3.5")
    return number
