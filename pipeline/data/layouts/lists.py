"""Lists of clips: CSV, TSV, JSON lines or Parquet with the columns path, label[, group, split, start, end]."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.config import DataConfig
from pipeline.data.layouts.entries import SPLIT_NAMES, Entry, Listing
from pipeline.errors import DataError
from pipeline.video.images import suffix

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMNS = ("path", "label", "group", "split", "start", "end", "time", "value")

Row = tuple[str, dict[str, Any]]
"""Where it stands, as "line 3" or "row 3", and its values by column."""


def listed(
    root: str,
    data: DataConfig,
    needed: Sequence[str] = ("path", "label"),
    read: Callable[[str, str, dict[str, Any], str], Entry] | None = None,
) -> Listing:
    """The clips of a list, one per row. See `list_place`.

    A file that does not exist stays an entry: the catalog says so, and it counts in the coverage.

    Args:
        needed: the columns without which there is nothing to read.
        read: from the list, where a row stands, the row and the folder of the paths to an entry; None: with a label.
    """
    path, base = list_place(root, data)
    entries: list[Entry] = []
    seen: dict[str, list[tuple[str, Entry]]] = {}
    for where, row in read_rows(path, needed):
        entry = (read or _labelled)(path, where, row, base)
        same = seen.setdefault(os.path.normpath(entry.path), [])
        _refuse_twice(path, where, entry, same, str(row["path"]))
        same.append((where, entry))
        entries.append(entry)
    if not entries:
        raise DataError(f"{path} lists no clips; add lines of {','.join(needed)}")
    return Listing(entries, [], "list")


def list_place(root: str, data: DataConfig) -> tuple[str, str]:
    """The list, and the folder that its paths are relative to.

    It is `data.annotations`, with paths relative to the root, or the root itself, or the clips.csv (.tsv, .jsonl,
    .parquet) in it, with paths relative to its folder.

    Raises:
        DataError: there is none.
    """
    inside = os.path.isdir(root)
    if data.annotations and inside:
        return os.path.expanduser(data.annotations), root
    path = list_in(root) if inside else root
    if path is None:
        raise DataError(f"{root} holds no list; name it clips.csv, clips.tsv, clips.jsonl or clips.parquet")
    return path, os.path.dirname(path)


def list_in(folder: str) -> str | None:
    """The list in a folder, by its name; None where there is none.

    Raises:
        DataError: there are several.
    """
    found = [f"clips{end}" for end in LIST_SUFFIXES if os.path.isfile(os.path.join(folder, f"clips{end}"))]
    if len(found) > 1:
        raise DataError(f"{folder} has the lists {' and '.join(found)}; give the one you mean as data.root")
    return os.path.join(folder, found[0]) if found else None


def read_rows(path: str, needed: Sequence[str]) -> list[Row]:
    """The rows of a table; column names come in lower case.

    Raises:
        DataError: another suffix, not readable, not what the suffix says, or without a needed column.
    """
    kind = suffix(path)
    if kind not in LIST_SUFFIXES:
        raise DataError(f"{path} is a file, but no list; give a folder, or a list as {', '.join(LIST_SUFFIXES)}")
    read = {".jsonl": _read_json_lines, ".parquet": _read_parquet}.get(kind, _read_csv)
    try:
        columns, rows = read(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:  # what pyarrow raises is a ValueError too
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    lacking = [name for name in needed if name not in columns] if rows or kind != ".jsonl" else []
    if lacking:
        first = "its first line" if kind in (".csv", ".tsv") else "every row"
        raise DataError(f"{path} lacks the column {' and '.join(lacking)}; {first} must name {' and '.join(needed)}")
    return rows


def _read_csv(path: str) -> tuple[list[str], list[Row]]:
    """Column names in lower case, and the rows, of a CSV file (or TSV, by its suffix)."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True, delimiter="\t" if suffix(path) == ".tsv" else ",")
        names = [name.strip().lower() for name in reader.fieldnames or []]
        reader.fieldnames = names
        return names, [(f"line {reader.line_num}", row) for row in reader]


def _read_json_lines(path: str) -> tuple[list[str], list[Row]]:
    rows: list[Row] = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error.msg}); give one object a line") from error
            if not isinstance(values, dict):
                raise DataError(f"{path}, line {number}: no JSON object; give one object a line")
            rows.append((f"line {number}", {key.strip().lower(): value for key, value in values.items()}))
    # a row without a path is an error of its own line, not of the whole file
    return list({name: None for _, row in rows for name in row}), rows


def _read_parquet(path: str) -> tuple[list[str], list[Row]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    names = [name.strip().lower() for name in table.column_names]
    wanted = [index for index, name in enumerate(names) if name in COLUMNS]
    columns = [table.column(index).to_pylist() for index in wanted]
    keys = [names[index] for index in wanted]
    return names, [
        (f"row {n}", dict(zip(keys, row, strict=True))) for n, row in enumerate(zip(*columns, strict=True), 1)
    ]


def _labelled(path: str, where: str, row: dict[str, Any], base: str) -> Entry:
    entry = row_entry(path, where, row, base)
    label = row_text(path, where, "label", row.get("label"))
    if not label:
        raise DataError(f"{path}, {where}: the label is empty; fill it in or remove the line")
    return replace(entry, label=label)


def row_entry(path: str, where: str, row: dict[str, Any], base: str) -> Entry:
    """What any row of a list says, its label left empty. A short line of a CSV file has None for what it lacks.

    Raises:
        DataError: no path, no split's name, no moments.
    """
    values = {name: row_text(path, where, name, row.get(name)) for name in ("path", "group", "split")}
    if not values["path"]:
        raise DataError(f"{path}, {where}: the path is empty; fill it in or remove the line")
    split = SPLIT_NAMES.get(values["split"].lower()) if values["split"] else None
    if values["split"] and split is None:
        raise DataError(f"{path}, {where}: split '{values['split']}'; choose train, val, test or leave it empty")
    start, end = row_bounds(path, where, row)
    return Entry(os.path.join(base, values["path"]), "", values["group"] or None, split, start, end)


def row_bounds(path: str, where: str, row: dict[str, Any]) -> tuple[float | None, float | None]:
    """Start and end in seconds, None where they are not given.

    Raises:
        DataError: no seconds, or no time between them.
    """
    start, end = (seconds(path, where, name, row.get(name)) for name in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{path}, {where}: end {end:g} is not after start {start or 0.0:g}; give seconds, start < end")
    return start, end


def row_text(path: str, where: str, name: str, value: Any) -> str:
    """A value as text; a number is taken for its digits, since class 3 is often written as 3."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(f"{path}, {where}: the {name} is a {type(value).__name__}; give text")
    return str(value).strip()


def seconds(path: str, where: str, name: str, value: Any) -> float | None:
    """A moment in seconds, or None where there is none."""
    text = row_text(path, where, name, value)
    if not text:
        return None
    try:
        moment = float(text)
    except ValueError:
        moment = math.nan
    if not (math.isfinite(moment) and moment >= 0):
        raise DataError(f"{path}, {where}: {name} '{text}'; give seconds after the first frame, 0 or more")
    return moment


def _refuse_twice(path: str, where: str, entry: Entry, same: list[tuple[str, Entry]], name: str) -> None:
    """A file may be listed again only in other parts: the same clip in two rows would be counted twice."""
    part = (entry.start or 0.0, entry.end)
    for line, other in same:
        known = (other.start or 0.0, other.end)
        if part == known:
            raise DataError(f"{path}, {where}: {name} is listed on {line} already; remove one")
        if (0.0, None) in (part, known):
            raise DataError(f"{path}, {where}: {name} is listed as a whole and in part, see {line}; remove one")
