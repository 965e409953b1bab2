"""What SOURCE on a command line stands for: files, folders, globs, list files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.data.layouts.walk import is_clip_folder, walk
from pipeline.errors import DataError
from pipeline.video.containers import read_structure

LIST_SUFFIXES = (".txt", ".lst", ".list")


def find_files(sources: Iterable[str | Path], thorough: bool = False) -> list[str]:
    """Every file to classify, each once, in the order of the sources; folders in natural order of names.

    A folder is searched by the rules of `layouts.walk`, but one that holds images and neither videos nor folders is
    itself one clip. (Given as a class folder of a dataset, its images are clips of one frame each.)

    Args:
        sources: files, folders, globs, lists of paths.
        thorough: find in folders also hidden videos, and videos without a suffix.

    Raises:
        DataError: a source does not exist or holds nothing to classify.
    """
    found: dict[str, None] = {}
    for source in sources:
        found.update(dict.fromkeys(_expand(str(source), thorough)))
    return list(found)


def _expand(source: str, thorough: bool) -> list[str]:
    path = Path(source)
    if path.is_dir():
        files = [source] if is_clip_folder(source) else _search(source, thorough)
        if not files:
            raise DataError(f"{source}: no video and no image in this folder")
        return files
    if path.exists() or path.is_symlink():
        return _read_list(path) if path.suffix.lower() in LIST_SUFFIXES else [source]
    matches = sorted(glob.glob(source, recursive=True))
    if not matches:
        raise DataError(f"{source}: no such file or folder")
    return [file for match in matches for file in _expand(match, thorough)]


def _search(folder: str, thorough: bool) -> list[str]:
    """The clips below a folder, as `layouts.walk` finds them, also those whose names are not UTF-8."""
    files = []
    for path, is_clip in walk(folder, hidden=thorough, any_name=True):
        if is_clip or (thorough and _looks_like_video(path)):
            files.append(path)
    return files


def _looks_like_video(path: str) -> bool:
    """Whether a file without a suffix begins like a container of video."""
    if os.path.splitext(path)[1]:
        return False
    try:
        return os.path.isfile(path) and read_structure(path).kind not in ("", "audio")
    except OSError:
        return False


def _read_list(path: Path) -> list[str]:
    """One path a line, relative to the list's folder; empty lines and lines that start with # are passed over.

    A file that does not exist becomes a row of the results, like any other that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not named:
        raise DataError(f"{path}: the list names no file")
    return [name if os.path.isabs(name) else str(path.parent / name) for name in named]
