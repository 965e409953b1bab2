"""From what official lists name to the files that are there."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from pipeline.data.layouts.entries import Entry, Listing, relative, some
from pipeline.data.layouts.walk import walk
from pipeline.errors import DataError
from pipeline.video.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, suffix


class Files:
    """Clips below a root by their name without suffix, so that converted ones are found as well.

    Attributes:
        others: paths of what is no clip.
        used: paths that `find` has given out.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.others: list[str] = []
        self.used: set[str] = set()
        self._paths: dict[str, list[str]] = {}
        for path, is_clip in walk(root):
            if is_clip:
                self._paths.setdefault(stem(path), []).append(path)
            else:
                self.others.append(path)

    def find(self, name: str, label: str = "") -> str | None:
        """The clip of a name; where several have it, the one in the folder `label`.

        Raises:
            DataError: there are several still.
        """
        paths = self._paths.get(name, [])
        if len(paths) > 1:
            paths = [path for path in paths if os.path.basename(os.path.dirname(path)) == label] or paths
        if len(paths) > 1:
            raise DataError(f"{paths[0]} and {paths[1]} have one name in the dataset's lists; remove one of them")
        self.used.update(paths)
        return paths[0] if paths else None

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def unused(self) -> list[str]:
        """Paths of the clips that `find` has not given out."""
        return [path for paths in self._paths.values() for path in paths if path not in self.used]

    def listing(self, kind: str, entries: list[Entry], notes: list[str], what: str, known: int = 0) -> Listing:
        """The listing of a layout that keeps these entries; every other clip is unused.

        Args:
            kind: the layout.
            entries: what it keeps.
            notes: what it has to say.
            what: where the other clips are not named.
            known: how many of them a note names already.
        """
        kept = {entry.path for entry in entries}
        unused = relative((path for paths in self._paths.values() for path in paths if path not in kept), self.root)
        more = [f"{len(unused) - known} clips are not in {what} and are left out"] if len(unused) > known else []
        return Listing(entries, relative(self.others, self.root), kind, unused, [*notes, *more])


def stem(path: str) -> str:
    """The name of a clip without its suffix; the whole name of a folder, which may have dots of its own."""
    name = os.path.basename(path)
    return os.path.splitext(name)[0] if suffix(name) in VIDEO_SUFFIXES | IMAGE_SUFFIXES else name


def annotation_files(
    root: str, annotations: str | None, names: Sequence[str], patterns: Sequence[str], word: str = ""
) -> list[str]:
    """A dataset's official files: those of the first folder that has any, sorted.

    Args:
        root: the clips.
        annotations: `data.annotations`: this folder, or that of this file, and no other; None: the root, its parent,
            and in each the folders `names`.
        names: what the folder is called as published.
        patterns: globs that the files fit.
        word: what their first line holds.

    Raises:
        DataError: `annotations` does not exist.
    """
    if annotations:
        given = os.path.expanduser(annotations)
        if not os.path.exists(given):
            raise DataError(f"data.annotations {annotations} does not exist; check the path")
        places = [given if os.path.isdir(given) else os.path.dirname(given) or "."]
    else:
        places = [root, os.path.dirname(os.path.abspath(root))]
    for place in places:
        for folder in (place, *(os.path.join(place, name) for name in names)):
            found = {path for pattern in patterns for path in glob.glob(os.path.join(glob.escape(folder), pattern))}
            if fitting := sorted(path for path in found if not word or word in _first_line(path)):
                return fitting
    return []


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline(1000).lower()
    except (OSError, UnicodeDecodeError):
        return ""


def text_lines(path: str) -> list[tuple[str, str]]:
    """("line 3", text) of every line that is not empty.

    Raises:
        DataError: the file cannot be read as UTF-8 text.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [(f"line {number}", line.strip()) for number, line in enumerate(file, 1)]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; see data.annotations and data.official_split") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return [(where, text) for where, text in lines if text]


def present_classes(entries: list[Entry], files: Files, notes: list[str], what: str) -> list[Entry]:
    """The entries without classes that have no file at all, as in a subset; missing files of the others stay.

    Raises:
        DataError: no file is there.
    """
    there = {entry.label for entry in entries if entry.path in files.used}
    if not there:
        raise DataError(f"{files.root} has none of the {len(entries)} clips that {what} name; check data.root")
    absent = sorted({entry.label for entry in entries} - there)
    kept = [entry for entry in entries if entry.label in there]
    if absent:
        notes.append(f"{len(absent)} classes of {what} have no clip here and are left out: {some(absent)}")
    missing = [entry.path for entry in kept if entry.path not in files.used]
    if missing:
        notes.append(f"{len(missing)} clips that {what} name are not here: {some(relative(missing, files.root))}")
    return kept
