"""What `data.layout auto` stands for: the layouts that cannot be taken for another one."""

from __future__ import annotations

import os
import re

from pipeline.config import DataConfig
from pipeline.data.layouts import official
from pipeline.data.layouts.entries import LIST_NAME, SPLIT_NAMES
from pipeline.data.layouts.folders import UNLABELLED, subfolders
from pipeline.data.layouts.kth import NAME as KTH_NAME
from pipeline.data.layouts.kth import SEQUENCES
from pipeline.data.layouts.lists import list_in
from pipeline.data.layouts.match import annotation_files, stem
from pipeline.data.layouts.walk import has_clip_suffix, is_folder, visible, walk
from pipeline.errors import DataError

UCF11_FOLDER = re.compile(r"^v_[A-Za-z_]+_\d+$")


def recognise(root: str, data: DataConfig) -> str:
    """The layout of a dataset, by names alone; kinetics and something are never guessed.

    Raises:
        DataError: it could be two, or the annotations that are given belong to no layout that it can be.
    """
    if not os.path.isdir(root) or list_in(root):
        return "list"
    folders = subfolders(root)
    splits = {name for name in folders if name.lower() in SPLIT_NAMES}
    if len({SPLIT_NAMES[name.lower()] for name in splits}) > 1:
        _refuse_classes_beside_splits(root, [name for name in folders if name not in splits])
        unlabelled = any(UNLABELLED in subfolders(os.path.join(root, name)) for name in splits)
        return "fiftyone" if unlabelled else "splits"
    if UNLABELLED in folders:
        return "fiftyone"
    found = _by_names(root, folders, data)
    if found is None:
        _refuse_unused_annotations(root, data)
    return found or "folders"


def _by_names(root: str, folders: list[str], data: DataConfig) -> str | None:
    """The published dataset whose names all of these have, with the official files that go with it."""
    names = [stem(path) for path in _first_clips(root, folders)]
    if names and all(KTH_NAME.match(name) and name.endswith("_uncomp") for name in names):
        return "kth"
    if names and all(official.UCF101_NAME.match(name) for name in names):
        if annotation_files(root, data.annotations, official.UCF101_LISTS, ["trainlist0?.txt"]):
            return "ucf101"
        return None
    inner = [subfolders(os.path.join(root, name)) for name in folders]
    if inner and all(any(UCF11_FOLDER.match(name) for name in names) for names in inner):
        return "ucf11"
    lists = annotation_files(root, data.annotations, official.HMDB51_LISTS, ["*_test_split?.txt"])
    classes = {re.sub(r"_test_split\d\.txt$", "", os.path.basename(path)) for path in lists}
    own = [name for name in folders if name not in official.HMDB51_LISTS]
    return "hmdb51" if own and set(own) <= classes else None


def _first_clips(root: str, folders: list[str]) -> list[str]:
    """The clips that lie in the root and directly in its folders."""
    items = visible(root)
    for name in folders:
        try:
            items = items + visible(os.path.join(root, name))
        except DataError:
            continue  # the catalog will say that it cannot be read
    return [item.path for item in items if has_clip_suffix(item.name) and not is_folder(item)]


def _refuse_classes_beside_splits(root: str, others: list[str]) -> None:
    """train, test and a third folder with clips: a class, or something to leave out?"""
    for name in others:
        if any(is_clip for _, is_clip in walk(os.path.join(root, name))):
            raise DataError(
                f"{root} has folders of splits, and {name} with clips as well; set data.layout splits to leave it out,"
                f" folders if they are all classes, or list the clips in {LIST_NAME}"
            )


def _refuse_unused_annotations(root: str, data: DataConfig) -> None:
    """Official files in the dataset itself, or given, say that it is no plain folder of classes."""
    patterns = {
        "ucf101": ["trainlist0?.txt"], "hmdb51": ["*_test_split?.txt"], "kth": [SEQUENCES],
    }  # fmt: skip
    folders = {*official.UCF101_LISTS, *official.HMDB51_LISTS}
    places = [data.annotations] if data.annotations else [root, *(os.path.join(root, name) for name in sorted(folders))]
    for place in places:
        if not os.path.exists(os.path.expanduser(place)):
            if data.annotations:
                raise DataError(f"data.annotations {data.annotations} does not exist; check the path")
            continue
        for layout, files in patterns.items():
            if found := annotation_files(root, place, (), files):
                raise DataError(
                    f"{os.path.basename(found[0])} is there, but not every clip of {root} is named as in {layout};"
                    f" set data.layout {layout}, or folders for a split of our own"
                )
    if data.annotations:
        raise DataError(f"data.annotations is set, and {root} does not say for which layout; set data.layout")
