"""Finding the clips of a dataset: folders, lists, and the layouts that public datasets come in.

`docs/data.md` shows each. No clip is opened here.
"""

from __future__ import annotations

import os

from pipeline.addresses import is_address, shown
from pipeline.config import DataConfig
from pipeline.data.layouts.annotations import kinetics, something
from pipeline.data.layouts.entries import LIST_NAME, SPLITS, Entry, Listing
from pipeline.data.layouts.folders import class_folders, fiftyone, split_folders
from pipeline.data.layouts.groups import compiled, with_groups
from pipeline.data.layouts.kth import kth
from pipeline.data.layouts.official import hmdb51, ucf11, ucf101
from pipeline.data.layouts.recognise import recognise
from pipeline.data.layouts.target_lists import COLUMNS, LISTS
from pipeline.data.layouts.walk import walk
from pipeline.errors import ConfigError, DataError

__all__ = ["LIST_NAME", "SPLITS", "Entry", "Listing", "discover", "walk"]

READERS = {
    "folders": class_folders,
    "splits": split_folders,
    "fiftyone": fiftyone,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "ucf11": ucf11,
    "kth": kth,
    "kinetics": kinetics,
    "something": something,
}


def discover(data: DataConfig, task: str = "label") -> Listing:
    """Find the clips of `data.root`, their splits where the dataset has some, and the groups they come from.

    Args:
        data: where they are.
        task: what is to be learned from them; all but label need a list, see `docs/tasks.md`.

    Raises:
        DataError: no root, no clips, unusable lists or annotations, a layout that cannot be told, a group pattern
            that fits no file; a layout that has labels alone, for another task.
        ConfigError: a group pattern that is no regular expression with a parenthesis, an official split that does not
            exist; `data.background` for a task without segments.
    """
    if data.background and task != "frame_label":
        raise ConfigError(f"data.background is for the task frame_label; task is {task}")
    if not data.root:
        raise DataError("data.root is not set; give a folder of class folders or a list of clips (--data.root DATA)")
    pattern = compiled(data.group_pattern)
    if is_address(data.root):
        raise DataError(f"data.root {shown(data.root)} lies elsewhere; only classify reads there, copy it here")
    root = os.path.expanduser(data.root)
    if not os.path.exists(root):
        raise DataError(f"data.root {data.root} does not exist; check the path")
    layout = recognise(root, data) if data.layout == "auto" else data.layout
    if layout != "list" and not os.path.isdir(root):
        raise DataError(f"data.root {data.root} is a file; data.layout {layout} needs a folder")
    if layout != "list" and task != "label":
        raise DataError(f"task {task} needs a list of {COLUMNS[task]}; {data.root} is read as {layout} (docs/tasks.md)")
    listing = (LISTS[task] if layout == "list" else READERS[layout])(root, data)
    base = root if os.path.isdir(root) else os.path.dirname(root)
    return with_groups(listing, data.group_pattern, pattern, base)
