"""Finding the clips of a dataset: folders, lists, and the layouts that public datasets come in.

`docs/data.md` shows each. No clip is opened here.
"""

from __future__ import annotations

import os

from pipeline.config import DataConfig
from pipeline.data.layouts.annotations import kinetics, something
from pipeline.data.layouts.entries import LIST_NAME, SPLITS, Entry, Listing
from pipeline.data.layouts.folders import class_folders, fiftyone, split_folders
from pipeline.data.layouts.groups import compiled, with_groups
from pipeline.data.layouts.kth import kth
from pipeline.data.layouts.lists import listed
from pipeline.data.layouts.official import hmdb51, ucf11, ucf101
from pipeline.data.layouts.recognise import recognise
from pipeline.data.layouts.walk import walk
from pipeline.errors import DataError

__all__ = ["LIST_NAME", "SPLITS", "Entry", "Listing", "discover", "walk"]

READERS = {
    "folders": class_folders,
    "splits": split_folders,
    "fiftyone": fiftyone,
    "list": listed,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "ucf11": ucf11,
    "kth": kth,
    "kinetics": kinetics,
    "something": something,
}


def discover(data: DataConfig) -> Listing:
    """Find the clips of `data.root`, their splits where the dataset has some, and the groups they come from.

    Raises:
        DataError: no root, no clips, unusable lists or annotations, a layout that cannot be told, a group pattern
            that fits no file.
        ConfigError: a group pattern that is no regular expression with a parenthesis, an official split that does not
            exist.
    """
    if not data.root:
        raise DataError("data.root is not set; give a folder of class folders or a list of clips (--data.root DATA)")
    pattern = compiled(data.group_pattern)
    root = os.path.expanduser(data.root)
    if not os.path.exists(root):
        raise DataError(f"data.root {data.root} does not exist; check the path")
    layout = recognise(root, data) if data.layout == "auto" else data.layout
    if layout != "list" and not os.path.isdir(root):
        raise DataError(f"data.root {data.root} is a file; data.layout {layout} needs a folder")
    listing = READERS[layout](root, data)
    base = root if os.path.isdir(root) else os.path.dirname(root)
    return with_groups(listing, data.group_pattern, pattern, base)
