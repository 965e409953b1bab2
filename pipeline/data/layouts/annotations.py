"""Datasets whose labels are in files of their own: Kinetics (CSV), Something-Something (JSON), Jester (CSV)."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from pipeline.config import DataConfig
from pipeline.data.layouts.entries import SPLIT_NAMES, Entry, Listing
from pipeline.data.layouts.lists import read_rows, seconds
from pipeline.data.layouts.match import Files, annotation_files, present_classes, text_lines
from pipeline.errors import DataError
from pipeline.video.images import suffix

KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
SPLIT_IN_NAME = re.compile(r"train|val|test", re.IGNORECASE)


def kinetics(root: str, data: DataConfig) -> Listing:
    """Kinetics: CSV files of label, youtube_id, time_start, time_end, split; the group is the YouTube video.

    A file ID_000010_000020.mp4 is that part already; of ID.mp4 the part is taken. A clip without a file stays an entry.
    """
    files = Files(root)
    notes: list[str] = []
    entries: list[Entry] = []
    seen: dict[tuple[str, float, float], Entry] = {}
    unlabelled = 0
    for path in _files_of("Kinetics", root, data, ["*.csv"], "youtube_id"):
        for where, row in read_rows(path, KINETICS_COLUMNS):
            key = _kinetics_key(path, where, row)
            label = (row.get("label") or "").strip()
            if not label:
                unlabelled += 1
                continue
            split = _split(path, where, (row.get("split") or "").strip())
            entry = _kinetics_entry(files, key, label, split)
            same = seen.setdefault(key, entry)
            if same is entry:
                entries.append(entry)
            elif same != entry:
                raise DataError(f"{path}, {where}: {key[0]} has another label or split elsewhere; remove one")
    if unlabelled:
        notes.append(f"{unlabelled} rows of the annotations have no label and are left out")
    return _finished("kinetics", files, entries, notes)


def _kinetics_key(path: str, where: str, row: dict[str, Any]) -> tuple[str, float, float]:
    name = (row.get("youtube_id") or "").strip()
    start, end = (seconds(path, where, column, row.get(column)) for column in ("time_start", "time_end"))
    if not name or start is None or end is None or end <= start:
        raise DataError(f"{path}, {where}: give a youtube_id and time_start < time_end, in seconds")
    return name, start, end


def _kinetics_entry(files: Files, key: tuple[str, float, float], label: str, split: str | None) -> Entry:
    name, start, end = key
    cut = f"{name}_{int(start):06d}_{int(end):06d}"
    if found := files.find(cut, label):
        return Entry(found, label, name, split)
    if found := files.find(name, label):
        return Entry(found, label, name, split, start, end)
    return Entry(os.path.join(files.root, label, f"{cut}.mp4"), label, name, split)


def something(root: str, data: DataConfig) -> Listing:
    """Something-Something (JSON, ID.webm) and Jester (CSV of ID;LABEL, a folder of images ID).

    The class is the template without its brackets. Ids whose label was never published are left out.
    """
    paths = _files_of("Something-Something or Jester", root, data, ["*train*.json", "*train*.csv"])
    folder = os.path.dirname(paths[0])
    named = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if suffix(name) in (".json", ".csv")]
    allowed = _labels([path for path in named if "labels" in os.path.basename(path).lower()])
    found: dict[str, tuple[str, str | None]] = {}
    for path in named:
        if "labels" in os.path.basename(path).lower() or not SPLIT_IN_NAME.search(os.path.basename(path)):
            continue
        for where, name, label in _read_json(path) if suffix(path) == ".json" else _read_semicolons(path):
            if label and allowed and label not in allowed:
                raise DataError(f"{path}, {where}: '{label}' is no class of the labels beside it")
            before, split = found.get(name, ("", None))[0], _split(path, where, "")
            if name in found and (split != found[name][1] or (label and before and label != before)):
                raise DataError(f"{path}, {where}: {name} has another label or split elsewhere; remove one")
            found[name] = (label or before, split)
    files = Files(root)
    notes: list[str] = []
    unlabelled = sum(not label for label, _ in found.values())
    if unlabelled:
        notes.append(f"{unlabelled} ids of the annotations have no label and are left out")
    ending = ".webm" if suffix(paths[0]) == ".json" else ""  # in CSV, folders of images are listed
    entries = []
    for name, (label, split) in found.items():
        if label:
            entries.append(Entry(files.find(name, label) or os.path.join(root, name + ending), label, None, split))
    return _finished("something", files, entries, notes)


def _read_json(path: str) -> Iterator[tuple[str, str, str]]:
    """(where, id, label) of a list of objects; the label is empty where there is none."""
    items = _json(path)
    if not isinstance(items, list):
        raise DataError(f"{path} is no list of clips, as something-something-v2-train.json is")
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict) or not str(item.get("id") or "").strip():
            raise DataError(f"{path}, item {number}: no object with an id")
        label = str(item.get("template") or item.get("label") or "")
        yield f"item {number}", str(item["id"]).strip(), _plain(label)


def _read_semicolons(path: str) -> Iterator[tuple[str, str, str]]:
    """(where, id, label) of lines ID;LABEL, or ID alone."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [(f"line {number}", row) for number, row in enumerate(csv.reader(file, delimiter=";"), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for where, row in rows:
        if len(row) > 2 or not row[0].strip() or "," in row[0]:
            raise DataError(f"{path}, {where}: '{';'.join(row)[:80]}' is not ID;LABEL")
        yield where, row[0].strip(), _plain(row[1]) if len(row) == 2 else ""


def _labels(paths: list[str]) -> set[str]:
    """The class names of a labels file; empty where there is none."""
    names: set[str] = set()
    for path in paths:
        if suffix(path) == ".json":
            names |= {_plain(str(name)) for name in _json(path)}
        else:
            names |= {_plain(name) for _, name in text_lines(path)}
    return names


def _json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _plain(label: str) -> str:
    """A template without the brackets around its placeholders."""
    return label.replace("[", "").replace("]", "").strip()


def _split(path: str, where: str, given: str) -> str | None:
    """The split a row names, else the one in its file's name."""
    if given:
        if given.lower() not in SPLIT_NAMES:
            raise DataError(f"{path}, {where}: split '{given}'; choose train, val or test")
        return SPLIT_NAMES[given.lower()]
    match = SPLIT_IN_NAME.search(os.path.basename(path))
    return match.group().lower() if match else None


def _files_of(name: str, root: str, data: DataConfig, patterns: list[str], word: str = "") -> list[str]:
    """The annotation files of a dataset; of `data.annotations`, a file is taken alone."""
    given = os.path.expanduser(data.annotations or "")
    if os.path.isfile(given) and word:
        return [given]
    found = annotation_files(root, data.annotations, ("annotations", "labels"), patterns, word)
    if not found:
        where = data.annotations or f"{root} and beside it"
        raise DataError(f"no annotations of {name} ({', '.join(patterns)}) in {where}; name them with data.annotations")
    return found


def _finished(kind: str, files: Files, entries: list[Entry], notes: list[str]) -> Listing:
    if not entries:
        raise DataError(f"the annotations of {files.root} label no clip; see data.annotations")
    entries = present_classes(entries, files, notes, "the annotations")
    return files.listing(kind, entries, notes, "the annotations")
