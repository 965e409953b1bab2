"""Layouts that are nothing but folders: a folder per class, splits of class folders, FiftyOne's directory tree."""

from __future__ import annotations

import os

from pipeline.config import DataConfig
from pipeline.data.layouts.entries import LIST_NAME, SPLIT_NAMES, Entry, Listing, is_utf8, relative, some
from pipeline.data.layouts.walk import has_clip_suffix, is_folder, visible, walk
from pipeline.errors import DataError

UNLABELLED = "_unlabeled"
"""The folder in which FiftyOne keeps clips without a label."""


def class_folders(root: str, data: DataConfig) -> Listing:
    """A folder per class; its clips at any depth."""
    names = subfolders(root)
    if not names:
        raise DataError(f"{root} has no class folders; make a folder per class, or list the clips in {LIST_NAME}")
    listing = _classes(root, root, names, None)
    if not listing.entries:
        raise DataError(f"the class folders of {root} hold no video and no image; check data.root")
    if len(names) == 1 and len(subfolders(os.path.join(root, names[0]))) > 1:
        raise DataError(
            f"{root} has the one class '{names[0]}'; if its folders are the classes, give {root}/{names[0]}"
        )
    return listing


def split_folders(root: str, data: DataConfig) -> Listing:
    """Folders train, val and test of class folders."""
    return _splits(root, "splits", set())


def fiftyone(root: str, data: DataConfig) -> Listing:
    """FiftyOne's VideoClassificationDirectoryTree: class folders, in splits where its zoo wrote them.

    Clips without a label, and those of splits that are neither train, val nor test (HMDB51's `other`), are left out.
    """
    names = subfolders(root)
    if any(name.lower() in SPLIT_NAMES for name in names):
        return _splits(root, "fiftyone", {UNLABELLED})
    listing = _classes(root, root, [name for name in names if name != UNLABELLED], None)
    entries, ignored, notes = listing.entries, listing.ignored, listing.notes
    unused: list[str] = []
    if UNLABELLED in names:
        unused, more = _clips(root, os.path.join(root, UNLABELLED))
        ignored = ignored + more
        notes = [*notes, f"{len(unused)} clips in {UNLABELLED} have no label and are left out"]
    if not entries:
        raise DataError(f"the class folders of {root} hold no video and no image; check data.root")
    return Listing(entries, ignored, "fiftyone", unused, notes)


def subfolders(root: str) -> list[str]:
    """Names of the visible folders, in natural order."""
    return [item.name for item in visible(root) if is_folder(item) and is_utf8(item.name)]


def _splits(root: str, kind: str, without: set[str]) -> Listing:
    """The class folders of each split folder; other folders are left out, and named."""
    found: dict[str, str] = {}
    entries: list[Entry] = []
    ignored = _loose(root)[0]
    unused: list[str] = []
    notes: list[str] = []
    for name in subfolders(root):
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            clips, others = _clips(root, os.path.join(root, name))
            unused, ignored = unused + clips, ignored + others
            if clips:
                notes.append(f"folder {name} is no split; its {len(clips)} clips are left out")
            continue
        if split in found:
            raise DataError(f"{root} has both {found[split]} and {name}; make them one folder")
        found[split] = name
        folder = os.path.join(root, name)
        part = _classes(root, folder, [label for label in subfolders(folder) if label not in without], split)
        entries, ignored, notes = entries + part.entries, ignored + part.ignored, notes + part.notes
        for label in without & set(subfolders(folder)):
            clips, others = _clips(root, os.path.join(folder, label))
            unused, ignored = unused + clips, ignored + others
            notes.append(f"{len(clips)} clips in {name}/{label} have no label and are left out")
    if not found:
        raise DataError(f"{root} has no folders train, val or test; check data.root and data.layout")
    if not entries:
        raise DataError(f"the folders {', '.join(found.values())} of {root} hold no class folders with clips")
    return Listing(entries, ignored, kind, unused, notes)


def _classes(root: str, folder: str, labels: list[str], split: str | None) -> Listing:
    """The clips of the class folders of one folder; clips outside them are ignored, and a note says so."""
    ignored, loose = _loose(folder)
    entries: list[Entry] = []
    others: list[str] = []
    for label in labels:
        # a link in a class folder that leads back to the dataset must not make other classes' clips its own
        for path, is_clip in walk(os.path.join(folder, label), {os.path.realpath(root), os.path.realpath(folder)}):
            if is_clip:
                entries.append(Entry(path, label, None, split))
            else:
                others.append(path)
    notes = []
    if loose:
        notes.append(f"{len(loose)} clips in {folder} lie outside every class folder and are ignored: {some(loose)}")
    prefix = os.path.relpath(folder, root)
    ignored = [name if prefix == "." else f"{prefix}/{name}" for name in ignored]
    return Listing(entries, ignored + relative(others, root), "folders", [], notes)


def _loose(folder: str) -> tuple[list[str], list[str]]:
    """What lies directly in a folder and is no folder that can be named, and the clips among it, as printable names."""
    paths = [item.path for item in visible(folder) if not is_folder(item) or not is_utf8(item.name)]
    clips = [path for path in paths if has_clip_suffix(path)]
    return relative(paths, folder), relative(clips, folder)


def _clips(root: str, folder: str) -> tuple[list[str], list[str]]:
    """Clips and other files below a folder, relative to root."""
    found = list(walk(folder))
    return relative((p for p, clip in found if clip), root), relative((p for p, clip in found if not clip), root)
