"""Datasets with official splits by file name: UCF101, HMDB51, KTH; and UCF11, which has groups alone."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipeline.config import DataConfig
from pipeline.data.layouts.entries import Entry, Listing, relative, some
from pipeline.data.layouts.folders import class_folders
from pipeline.data.layouts.match import Files, annotation_files, present_classes, stem, text_lines
from pipeline.errors import ConfigError, DataError

UCF101_NAME = re.compile(r"^v_\w+_g(\d+)_c\d+$")
UCF101_LISTS = ("ucfTrainTestlist", "annotations")
HMDB51_LISTS = ("testTrainMulti_7030_splits", "test_train_splits", "annotations")
UCF11_GROUP = re.compile(r"(?:^|/)(v_[A-Za-z_]+_\d+)(?:/|_\d+\.)")


def ucf101(root: str, data: DataConfig) -> Listing:
    """UCF101 with its trainlist0N.txt and testlist0N.txt.

    The lists divide by the number after g alone, over all classes at once, so that is the group.
    """
    number = data.official_split
    folder = os.path.dirname(_lists("UCF101", root, data, UCF101_LISTS, f"trainlist{number:02d}.txt")[0])
    files = Files(root)
    notes: list[str] = []
    entries: list[Entry] = []
    for split in ("train", "test"):
        path = os.path.join(folder, f"{split}list{number:02d}.txt")
        for where, line in text_lines(path):
            label, _, name = re.sub(r"\s+\d+$", "", line).partition("/")  # trainlists end in the class's number
            if not label or not name:
                raise DataError(f"{path}, {where}: '{line}' is no line of UCF101's lists, which say CLASS/FILE.avi")
            found = files.find(stem(name), label)
            entries.append(Entry(found or os.path.join(root, label, name), label, _ucf101_group(name), split))
    _refuse_both(entries, folder)
    labels = {entry.label for entry in entries}
    entries = present_classes(entries, files, notes, f"UCF101's lists of split {number}")
    strangers = [path for path in files.unused() if os.path.basename(os.path.dirname(path)) in labels]
    if strangers:
        notes.append(f"{len(strangers)} clips are in no list of split {number}: {some(relative(strangers, root))}")
    for path in strangers:
        entries.append(Entry(path, os.path.basename(os.path.dirname(path)), _ucf101_group(path), None))
    return files.listing("ucf101", entries, notes, "UCF101's lists and class folders")


def _ucf101_group(path: str) -> str | None:
    match = UCF101_NAME.match(stem(path))
    return match.group(1) if match else None


def _refuse_both(entries: list[Entry], folder: str) -> None:
    """A clip in two lists, or twice in one, is no split."""
    seen: dict[str, str | None] = {}
    for entry in entries:
        if entry.path in seen:
            lists = f"{seen[entry.path]} and {entry.split}"
            raise DataError(f"{folder}: {entry.path} is listed twice ({lists}); take the published files")
        seen[entry.path] = entry.split


def hmdb51(root: str, data: DataConfig) -> Listing:
    """HMDB51 with its CLASS_test_splitN.txt: 1 trains, 2 tests, 0 is in neither part and left out.

    The group is the film that a file's name begins with, whatever the class. The official splits keep films apart
    within a class, not between classes; a film on both sides becomes two groups, so that the split can stay what it is.
    """
    number = data.official_split
    ending = f"_test_split{number}.txt"
    lists = _lists("HMDB51", root, data, HMDB51_LISTS, "*" + ending)
    files = Files(root)
    notes: list[str] = []
    entries: list[Entry] = []
    left_out = 0
    for path in lists:
        label = os.path.basename(path)[: -len(ending)]
        for where, line in text_lines(path):
            name, _, code = line.rpartition(" ")
            if code not in ("0", "1", "2") or not name.strip():
                raise DataError(f"{path}, {where}: '{line}' is no line of HMDB51's lists, which say FILE.avi 0, 1 or 2")
            name = name.strip()
            if code == "0":
                left_out += stem(name) in files
                continue
            found = files.find(stem(name), label)
            split = "train" if code == "1" else "test"
            entries.append(Entry(found or os.path.join(root, label, name), label, _film(name, label), split))
    if left_out:
        notes.append(f"{left_out} clips are in neither part of HMDB51's split {number} and are left out")
    _refuse_both(entries, os.path.dirname(lists[0]))
    entries = present_classes(entries, files, notes, f"HMDB51's lists of split {number}")
    return files.listing("hmdb51", _films_apart(entries, notes), notes, "HMDB51's lists", left_out)


def _film(name: str, label: str) -> str | None:
    """What stands before the class in a file's name."""
    return name.partition(f"_{label}_")[0] if f"_{label}_" in name else None


def _films_apart(entries: list[Entry], notes: list[str]) -> list[Entry]:
    """Give a film that the official split has on both sides a group for each."""
    sides = defaultdict(set)
    for entry in entries:
        sides[entry.group].add(entry.split)
    both = sorted(group for group, splits in sides.items() if group is not None and len(splits) > 1)
    if not both:
        return entries
    notes.append(f"the official split has clips of {len(both)} films in train and in test: {some(both)}")
    torn = set(both)
    return [replace(e, group=f"{e.group} ({e.split})") if e.group in torn else e for e in entries]


def ucf11(root: str, data: DataConfig) -> Listing:
    """UCF11 (YouTube actions): class folders of folders such as v_shooting_01, each a group; no official split."""
    listing = class_folders(root, data)
    names = relative((entry.path for entry in listing.entries), root)
    groups = [match.group(1) if (match := UCF11_GROUP.search(name)) else None for name in names]
    lacking = [name for name, group in zip(names, groups, strict=True) if group is None]
    if lacking:
        raise DataError(f"{root} is not UCF11: {lacking[0]} is in no folder such as v_shooting_01; see data.layout")
    entries = [replace(e, group=f"{e.label}/{g}") for e, g in zip(listing.entries, groups, strict=True)]
    return replace(listing, entries=entries, kind="ucf11")


def _lists(name: str, root: str, data: DataConfig, folders: Sequence[str], pattern: str) -> list[str]:
    """The official lists of one split."""
    if data.official_split > 3:
        raise ConfigError(f"data.official_split is {data.official_split}; {name} has the splits 1, 2 and 3")
    found = annotation_files(root, data.annotations, folders, [pattern])
    if not found:
        where = data.annotations or f"{root} and beside it"
        raise DataError(
            f"no {pattern} of {name} in {where}; put the published folder {folders[0]} there, name it with"
            " data.annotations, or set data.layout folders for a split of our own"
        )
    return found
