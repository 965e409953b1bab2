"""What a layout says about the clips of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

LIST_NAME = "clips.csv"
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call the splits, in lower case, and what they are called here."""


@dataclass(frozen=True)
class Entry:
    """One clip as the dataset names it: its path, its label, and its group and split where they are known.

    `start` and `end` are seconds after the file's first frame; None: from its beginning, to its end. `target` is what
    the clip is to be taken for where that is no label, see `data/target_text.py`; the label is empty then.
    """

    path: str
    label: str
    group: str | None
    split: str | None
    start: float | None = None
    end: float | None = None
    target: str = ""


@dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        entries: the clips, in a deterministic order (folders: by label and name; lists: as listed).
        ignored: paths relative to the root of visible files that are no clip of a class: neither video nor image, or
            outside every class folder, or with a name that is not UTF-8.
        kind: the layout, one of the values of `data.layout` but auto.
        unused: paths relative to the root of clips that the dataset's own lists leave out.
        notes: sentences for the user about what was found and what was not.
    """

    entries: list[Entry]
    ignored: list[str]
    kind: str
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def relative(paths: Iterable[str], root: str) -> list[str]:
    """Paths below root with forward slashes, printable whatever bytes they hold."""
    return [printable(os.path.relpath(path, root or ".").replace(os.sep, "/")) for path in paths]


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8 spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def is_utf8(name: str) -> bool:
    """Whether a table can hold the name."""
    return name == printable(name)


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return ", ".join(known[:shown]) + more
