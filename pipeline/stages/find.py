"""What SOURCE on a command line stands for: files, folders, globs, list files, addresses."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.addresses import WEB, is_address, parts_of, scheme_of, shown
from pipeline.config import FetchConfig
from pipeline.data.layouts.walk import is_clip_folder, walk
from pipeline.errors import DataError
from pipeline.video.containers import read_structure

LIST_SUFFIXES = (".txt", ".lst", ".list")


def find_files(sources: Iterable[str | Path], thorough: bool = False, fetch: FetchConfig | None = None) -> list[str]:
    """Every file to classify, each once, in the order of the sources; folders in natural order of names.

    A folder is searched by the rules of `layouts.walk`, but one that holds images and neither videos nor folders is
    itself one clip. (Given as a class folder of a dataset, its images are clips of one frame each.)

    Args:
        sources: files, folders, globs, lists of paths.
        thorough: find in folders also hidden videos, and videos without a suffix.
        fetch: files may lie elsewhere, and asking there may cost as much; None: they may not.

    Raises:
        DataError: a source does not exist or holds nothing to classify.
        ConfigError: a package for one of the sources is missing.
    """
    found: dict[str, None] = {}
    for source in map(str, sources):
        files = _expand_address(source, fetch) if is_address(source) else _expand(source, thorough)
        found.update(dict.fromkeys(files))
    elsewhere = [path for path in found if is_address(path)]
    if elsewhere:
        _check_addresses(elsewhere, fetch)
    return list(found)


def _expand_address(address: str, fetch: FetchConfig | None) -> list[str]:
    """The files that lie elsewhere; over HTTP, which has no folders, an address is one file."""
    _check_addresses([address], fetch)
    if scheme_of(address) in WEB:
        try:
            path = parts_of(address).path
        except ValueError as error:
            raise DataError(f"{shown(address)}: it is no address ({error})") from None
        if "*" in path or path.endswith("/") or not path:
            raise DataError(f"{shown(address)}: nobody lists folders over HTTP; name files, or a list of addresses")
        return [address]
    from pipeline.data.remote.objects import expand

    return expand(address, fetch)


def _check_addresses(addresses: list[str], fetch: FetchConfig | None) -> None:
    if fetch is None:
        raise DataError(f"{shown(addresses[0])}: only classify reads files elsewhere; copy them to this machine first")
    from pipeline.data.remote.fetcher import check_schemes

    check_schemes(addresses)


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
    """A path or address a line, paths relative to the list's folder. Empty lines and # comments do not count.

    A file that does not exist becomes a row of the results, like any other that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not named:
        raise DataError(f"{path}: the list names no file")
    return [name if os.path.isabs(name) or is_address(name) else str(path.parent / name) for name in named]
