"""Finding the clips of a dataset: a folder of class folders, or a list of paths and labels."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.config import DataConfig
from pipeline.errors import ConfigError, DataError
from pipeline.video.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image_folder, natural_key, suffix

LIST_NAME = "clips.csv"
SPLITS = ("train", "val", "test")
KNOWN_PATTERNS = (r"g(\d+)_c", r"person(\d+)")
"""Group patterns that `auto` tries: UCF101's and KTH's file names."""


@dataclass(frozen=True)
class Entry:
    """One clip as the dataset names it: its path, its label, and its group and split where they are known.

    `start` and `end` are seconds after the file's first frame; None: from its beginning, to its end.
    """

    path: str
    label: str
    group: str | None
    split: str | None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        entries: the clips, in a deterministic order (class folders: by label and name; list: as listed).
        ignored: paths relative to the root of visible files that are no video and no image.
        kind: "folders" or "list".
    """

    entries: list[Entry]
    ignored: list[str]
    kind: Literal["folders", "list"]


def discover(data: DataConfig) -> Listing:
    """Find the clips of `data.root` and the groups they come from. No clip is opened.

    Raises:
        DataError: no root, no clips, fewer than two classes, an unusable list, a group pattern that fits no
            file.
        ConfigError: a group pattern that is no regular expression with a parenthesis.
    """
    if not data.root:
        raise DataError("data.root is not set; give a folder of class folders or a CSV file (--data.root DATA)")
    pattern = None if data.group_pattern in ("auto", "none") else _compiled(data.group_pattern)
    root = os.path.expanduser(data.root)
    if not os.path.exists(root):
        raise DataError(f"data.root {data.root} does not exist; check the path")
    if os.path.isdir(root) and os.path.isfile(os.path.join(root, LIST_NAME)):
        root = os.path.join(root, LIST_NAME)
    if os.path.isdir(root):
        listing, base, grouped = _class_folders(root), root, False
    elif suffix(root) == ".csv":
        listing, grouped = _read_list(root)
        base = os.path.dirname(root)
    else:
        raise DataError(f"data.root {data.root} is a file; give a folder of class folders or a .csv list")
    labels = sorted({entry.label for entry in listing.entries})
    if len(labels) < 2:
        raise DataError(f"{root} has the one class '{labels[0]}'; a classifier needs at least two")
    if grouped or data.group_pattern == "none":
        return listing
    names = [os.path.relpath(entry.path, base or ".").replace(os.sep, "/") for entry in listing.entries]
    groups = _groups(names, pattern, root)
    entries = [replace(entry, group=group) for entry, group in zip(listing.entries, groups, strict=True)]
    return replace(listing, entries=entries)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group_pattern '{pattern}' is not a regular expression: {error}") from error
    if compiled.groups < 1:
        raise ConfigError(f"data.group_pattern '{pattern}' needs a parenthesis around the group, as in g(\\d+)_c")
    return compiled


def _groups(names: list[str], pattern: re.Pattern[str] | None, root: str) -> list[str | None]:
    """The group in each name; without a pattern, by the first known one that every name matches."""
    if pattern is None:
        for known in KNOWN_PATTERNS:
            found = [re.search(known, name) for name in names]
            if all(found):
                return [match.group(1) for match in found if match]
        return [None] * len(names)
    matches = [pattern.search(name) for name in names]
    if not any(matches):
        raise DataError(
            f"data.group_pattern '{pattern.pattern}' matches no file of {root}, such as {names[0]};"
            " correct it, or use none"
        )
    return [match.group(1) if match else None for match in matches]


def _class_folders(root: str) -> Listing:
    """The clips below each class folder of root."""
    folders = [item for item in _visible(root) if item.is_dir() and _is_utf8(item.name)]
    if not folders:
        raise DataError(f"{root} has no class folders; make a folder per class, or list the clips in {LIST_NAME}")
    names = {folder.name.lower() for folder in folders}
    if len(names) > 1 and names <= {"train", "training", "val", "valid", "validation", "test"}:
        raise DataError(
            f"{root} holds the splits {', '.join(sorted(names))} and not classes;"
            f" list the clips with their split in {LIST_NAME} (path,label,group,split)"
        )
    ignored = [item.name for item in _visible(root) if not item.is_dir() or not _is_utf8(item.name)]
    entries: list[Entry] = []
    for folder in folders:
        for path, is_clip in _walk(folder.path, above=(os.path.realpath(root),)):
            if is_clip:
                entries.append(Entry(path, folder.name, None, None))
            else:
                ignored.append(os.path.relpath(path, root))
    if not entries:
        raise DataError(f"the class folders of {root} hold no video and no image; check data.root")
    return Listing(entries, [_printable(path) for path in ignored], "folders")


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """(path, whether it is a clip) of everything visible below a folder, in order.

    `above` are the real paths of the folders on the way here: a link back to one of them is not followed.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for item in _visible(folder):
        if not _is_utf8(item.name):
            yield item.path, False  # no table can hold such a name, and OpenCV crashes on it
        elif item.is_dir():
            if is_image_folder(item.path):
                yield item.path, True
            else:
                yield from _walk(item.path, above=(*above, real))
        else:
            yield item.path, suffix(item.name) in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _visible(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder in natural order, without hidden ones (which macOS's `._*` side files are)."""
    try:
        with os.scandir(folder) as items:
            return sorted((i for i in items if not i.name.startswith(".")), key=lambda i: natural_key(i.name))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}; check its permissions") from error


def _is_utf8(name: str) -> bool:
    return name == _printable(name)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _read_list(path: str) -> tuple[Listing, bool]:
    """The clips of a CSV list, and whether it has a group column.

    A file that does not exist stays an entry: the catalog says so, and it counts in the coverage.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
            columns = list(reader.fieldnames)
            rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(f"{path} lacks the column {' and '.join(missing)}; its first line must name path,label")
    entries: list[Entry] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        entry = _list_entry(path, line, row)
        key = os.path.normpath(entry.path)
        if key in lines:
            raise DataError(f"{path}, line {line}: {row['path']} is listed on line {lines[key]} already; remove one")
        lines[key] = line
        entries.append(entry)
    if not entries:
        raise DataError(f"{path} lists no clips; add lines of path,label")
    return Listing(entries, [], "list"), "group" in columns


def _list_entry(path: str, line: int, row: dict[str, str]) -> Entry:
    """One line of a list. A short line has None for what it lacks."""
    values = {name: (row.get(name) or "").strip() for name in ("path", "label", "group", "split")}
    for name in ("path", "label"):
        if not values[name]:
            raise DataError(f"{path}, line {line}: the {name} is empty; fill it in or remove the line")
    if values["split"] not in ("", *SPLITS):
        raise DataError(f"{path}, line {line}: split '{values['split']}'; choose train, val, test or leave it empty")
    clip = os.path.join(os.path.dirname(path), values["path"])
    return Entry(clip, values["label"], values["group"] or None, values["split"] or None)
