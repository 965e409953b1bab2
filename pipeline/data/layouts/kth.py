"""KTH's action videos: persons are the groups and the official splits; 00sequences.txt cuts files into clips."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pipeline.config import DataConfig
from pipeline.data.layouts.entries import Entry, Listing
from pipeline.data.layouts.match import Files, annotation_files, present_classes, stem, text_lines
from pipeline.errors import DataError

CLASSES = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
NAME = re.compile(rf"^person(\d+)_({'|'.join(CLASSES)})_d\d+(?:_uncomp)?$")
SEQUENCES = "00sequences.txt"
RATE = 25.0
PERSONS = {
    "train": (11, 12, 13, 14, 15, 16, 17, 18),
    "val": (19, 20, 21, 23, 24, 25, 1, 4),
    "test": (22, 2, 3, 5, 6, 7, 8, 9, 10),
}
"""The official division (Schuldt, Laptev and Caputo 2004), as 00sequences.txt states it."""


@dataclass(frozen=True)
class _Part:
    """One repetition of an action in a file: seconds after the first frame."""

    start: float
    end: float


def kth(root: str, data: DataConfig) -> Listing:
    """Each file, or each of its sequences where 00sequences.txt is there, with label, person and split by its name."""
    files = Files(root)
    notes: list[str] = []
    found = annotation_files(root, data.annotations, ("annotations",), [SEQUENCES])
    if data.annotations and not found:
        raise DataError(f"data.annotations {data.annotations} has no {SEQUENCES}; give its folder, or leave it unset")
    if found:
        entries = _sequences(found[0], files)
        entries = present_classes(entries, files, notes, SEQUENCES)
    else:
        entries = [_entry(path, None) for path in files.unused() if NAME.match(stem(path))]
        notes.append(f"no {SEQUENCES} in {root} or beside it: every file is one clip of several repetitions")
    if not entries:
        raise DataError(f"{root} has no file named as KTH's are, such as person01_boxing_d1_uncomp.avi")
    return files.listing("kth", entries, notes, "KTH's names and sequences")


def _sequences(path: str, files: Files) -> list[Entry]:
    """An entry per sequence, in the order of the list; a file that is not there keeps its place."""
    entries = []
    for where, line in text_lines(path):
        name, _, rest = line.partition("frames")
        name = name.strip()
        if not NAME.match(name) or not rest:  # the text above the list, and what it calls missing
            continue
        known = files.find(f"{name}_uncomp") or files.find(name)
        label = NAME.match(name).group(2)  # type: ignore[union-attr]
        clip = known or os.path.join(files.root, label, f"{name}_uncomp.avi")
        entries += [_entry(clip, part) for part in _parts(path, where, rest)]
    if not entries:
        raise DataError(f"{path} names no sequence, as 'person01_boxing_d1 frames 1-95, 96-185' does")
    return entries


def _parts(path: str, where: str, text: str) -> list[_Part]:
    """Frame ranges, counted from 1 with both ends, as seconds.

    The limits lie half a frame outside, so that rounding decides for no frame at either end.
    """
    parts = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(\d+)\s*-\s*(\d+)", piece)
        first, last = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= first <= last:
            raise DataError(f"{path}, {where}: '{piece}' is no range of frames such as 1-95")
        parts.append(_Part(max(0.0, (first - 1.5) / RATE), (last - 0.5) / RATE))
    return parts


def _entry(path: str, part: _Part | None) -> Entry:
    match = NAME.match(stem(path))
    assert match is not None
    person = int(match.group(1))
    split = next((name for name, persons in PERSONS.items() if person in persons), None)
    start, end = (part.start, part.end) if part else (None, None)
    return Entry(path, match.group(2), f"person{person:02d}", split, start, end)
