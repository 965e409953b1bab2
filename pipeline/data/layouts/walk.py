"""The clips below a folder: one search for datasets and for what `classify` is given."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipeline.data.layouts.entries import is_utf8
from pipeline.errors import DataError
from pipeline.video.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_image_folder, natural_key, suffix


def walk(
    folder: str, seen: set[str] | None = None, hidden: bool = False, any_name: bool = False
) -> Iterator[tuple[str, bool]]:
    """(path, whether it is a clip) of everything visible below a folder, files and folders together in natural order.

    A clip is a file with a video's or an image's suffix, or a folder below this one that holds images and neither
    videos nor folders, whatever its name. Any other folder is searched, even one called x.mp4. Links are followed; a
    folder that several ways lead to is listed once, so no loop of links goes round. Hidden names are passed over, and
    with them macOS's `._*` files. A folder that cannot be listed counts as a clip: so it ends in a table, with its
    reason, and does not disappear. A name that is not UTF-8
    is no clip of a dataset: its lists and tables cannot hold it.

    Args:
        folder: where to search; its own images are clips of one frame each.
        seen: real paths of folders that are not to be searched; those that were searched are added.
        hidden: list hidden files as well; hidden folders are never searched.
        any_name: take also clips, and search also folders, whose names are not UTF-8.
    """
    seen = set() if seen is None else seen
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        items = visible(folder, hidden)
    except DataError:
        yield folder, True
        return
    for item in items:
        if not any_name and not is_utf8(item.name):
            yield item.path, False
        elif not is_folder(item):
            yield item.path, has_clip_suffix(item.name)
        elif is_clip_folder(item.path):
            yield item.path, True
        else:
            yield from walk(item.path, seen, hidden, any_name)


def visible(folder: str, hidden: bool = False) -> list[os.DirEntry[str]]:
    """The entries of a folder in natural order, without hidden ones; `hidden`: without hidden folders.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as items:
            shown = [item for item in items if not item.name.startswith(".") or (hidden and not is_folder(item))]
            return sorted(shown, key=lambda item: natural_key(item.name))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}; check its permissions") from error


def has_clip_suffix(name: str) -> bool:
    """Whether a file is one by its name."""
    return suffix(name) in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return item.is_dir()
    except OSError:
        return False


def is_clip_folder(folder: str) -> bool:
    """Whether a folder is one clip, which one that cannot be listed is not."""
    try:
        return is_image_folder(folder)
    except OSError:  # cannot be listed, or holds a link to itself: `walk` finds out which
        return False
