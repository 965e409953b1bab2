"""Cache: what is kept on disk to save work, how much of it there is, and how to be rid of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.folders import cache_dir
from pipeline.data.features import LIMIT, FeatureStore, parse_size
from pipeline.data.findings import NAME
from pipeline.errors import ConfigError, DataError

EXPORTS = "exports"
"""Folder, in the cache folder, of the graphs that `--engine onnx` runs."""


@dataclass(frozen=True)
class Cache:
    """What lies in the cache folder, after what was asked for was removed. Sizes are in bytes.

    Attributes:
        folder: the cache folder.
        entries, size: stored features: clip views, and how much they take.
        oldest, newest: seconds since 1970 in which a feature was last used, to ten minutes; None where there is none.
        limit: size at which the least recently used features are removed.
        findings: size of what is remembered about files that were examined.
        exports: size of the ONNX graphs of `--engine onnx`.
        removed, freed: features removed by this call, and what they took, findings and graphs included.
    """

    folder: str
    entries: int
    size: int
    oldest: float | None
    newest: float | None
    limit: int
    findings: int
    exports: int = 0
    removed: int = 0
    freed: int = 0


def manage_cache(clear: bool = False, everything: bool = False, limit: str | None = None) -> Cache:
    """Look at the cache, and make it smaller if asked to. What is removed is made again when it is needed.

    Args:
        clear: remove all features, those that a training is reading included.
        everything: with `clear`, also what is remembered about examined files, and the graphs of `--engine onnx`.
        limit: a size such as 5GB: remove the least recently used features above it; those used within the hour stay.

    Raises:
        ConfigError: `limit`, or $VIDEO_LSTM_CACHE_LIMIT, is no size; options that exclude each other.
        DataError: the folder cannot be changed.
    """
    if everything and not clear:
        raise ConfigError("--all goes with --clear")
    if clear and limit is not None:
        raise ConfigError("--clear leaves nothing to limit; give one of --clear and --limit")
    folder, store = Path(cache_dir()), FeatureStore()
    wanted = None if limit is None else parse_size(limit, "--limit")
    known = [folder / f"{NAME}{suffix}" for suffix in ("", "-wal", "-shm")]
    removed = freed = 0
    try:
        if clear:
            removed, freed = store.clear()
        if wanted is not None:
            removed, freed = store.trim(wanted)
        if clear and everything:
            known += _files(folder / EXPORTS)
            before = _size(known)
            for path in known:
                path.unlink(missing_ok=True)
            freed += before
    except OSError as error:
        raise DataError(f"{folder}: the cache cannot be changed ({error.strerror or error})") from error
    usage = store.usage()
    return Cache(
        str(folder),
        usage.entries,
        usage.size,
        usage.oldest,
        usage.newest,
        store.limit,
        _size(known),
        _size(_files(folder / EXPORTS)),
        removed,
        freed,
    )


def cache_text(cache: Cache) -> str:
    """The cache as a few lines."""
    lines = [f"folder    {cache.folder}"]
    of = f"{format_size(cache.size)} of {format_size(cache.limit)} ({LIMIT})"
    lines.append(f"features  {cache.entries} clip views, {of}")
    if cache.oldest is not None and cache.newest is not None:
        lines.append(f"last use  {_ago(cache.oldest)} the oldest, {_ago(cache.newest)} the newest")
    if cache.findings:
        lines.append(f"findings  {format_size(cache.findings)} about files that were examined")
    if cache.exports:
        lines.append(f"exports   {format_size(cache.exports)} of ONNX graphs")
    if cache.removed or cache.freed:
        lines.append(f"removed   {cache.removed} clip views, {format_size(cache.freed)} in all")
    return "\n".join(lines)


def format_size(size: int) -> str:
    """Bytes in the largest unit that leaves a number above 1: 82 KB, 1.5 GB."""
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.3g} {unit}"


def _ago(moment: float) -> str:
    seconds = max(time.time() - moment, 0.0)
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return "just now"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _size(paths: list[Path]) -> int:
    return sum(os.path.getsize(path) for path in paths if path.exists())
