"""The catalog: a table with one row per file, whatever became of it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.examine import OK, Finding, cache_dir, examine
from pipeline.data.layouts import Entry
from pipeline.errors import DataError, Reason

__all__ = ["COLUMNS", "OK", "build", "cache_dir", "digest", "read", "summary", "write"]

COLUMNS = (
    "path", "label", "group", "split", "frames", "duration", "fps", "width", "height", "codec", "digest",
    "status", "detail", "times",
)  # fmt: skip

_TEXT = ("path", "label", "codec", "digest", "status", "detail")
_OPTIONAL = ("group", "split", "unit")
_POOL_FROM = 16  # files; fewer are done before a pool of processes has started


def build(
    entries: Sequence[Entry],
    workers: int | None = None,
    progress: Callable[[int], Any] | None = None,
    cache: str | None = None,
) -> pd.DataFrame:
    """Hash and decode every file once.

    Args:
        entries: what `layouts.discover` found.
        workers: processes; None: one per core, at most 8; 0 or 1: this process alone.
        progress: called with 1 for each finished file.
        cache: folder of remembered results; None: `cache_dir()`.

    Returns:
        One row per entry, in entry order, with the columns `COLUMNS`. `status` is "ok" or a `Reason`; `group`
        and `split` are missing (NaN) where unknown; `times` holds float64 arrays of every decoded frame's
        seconds, empty for a file that failed.
    """
    folder = cache_dir() if cache is None else cache
    tick = progress or (lambda _: None)
    paths = [entry.path for entry in entries]
    wanted = min(8, os.cpu_count() or 1) if workers is None else workers
    findings: list[Finding | None] = [None] * len(paths)
    if wanted > 1 and len(paths) >= _POOL_FROM:
        _examine_in_pool(paths, folder, wanted, findings, tick)
    for index, path in enumerate(paths):
        if findings[index] is None:
            findings[index] = examine(path, folder)
            tick(1)
    return _table(entries, [finding for finding in findings if finding is not None])


def _pool(workers: int) -> ProcessPoolExecutor:
    """Fresh processes: a fork of one that runs torch's or OpenCV's threads may hang."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _examine_in_pool(
    paths: list[str], cache: str, workers: int, findings: list[Finding | None], tick: Callable[[int], Any]
) -> None:
    """Fill `findings`. A file on which the decoder ends its process gets that as its reason.

    Where processes cannot start at all (a script without `if __name__ == "__main__"`) nothing is filled.
    """
    try:
        with _pool(workers) as pool:
            pool.submit(os.getpid).result()
            futures = {pool.submit(examine, path, cache): index for index, path in enumerate(paths)}
            for future in as_completed(futures):
                findings[futures[future]] = future.result()
                tick(1)
        return
    except BrokenProcessPool:
        pass
    for index, path in enumerate(paths):
        if findings[index] is not None:
            continue
        with _pool(1) as pool:
            try:
                pool.submit(os.getpid).result()
            except BrokenProcessPool:
                return
            try:
                findings[index] = pool.submit(examine, path, cache).result()
            except BrokenProcessPool:
                findings[index] = Finding(str(Reason.NOT_READABLE), "the decoder crashed on it")
        tick(1)


def _table(entries: Sequence[Entry], findings: list[Finding]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {
        "path": [entry.path for entry in entries],
        "label": [entry.label for entry in entries],
        "group": [entry.group for entry in entries],
        "split": [entry.split for entry in entries],
        "frames": [len(finding.times) for finding in findings],
        "duration": [finding.duration for finding in findings],
        "fps": [finding.fps for finding in findings],
        "width": [finding.width for finding in findings],
        "height": [finding.height for finding in findings],
        "codec": [finding.codec for finding in findings],
        "digest": [finding.digest for finding in findings],
        "status": [finding.status for finding in findings],
        "detail": [finding.detail for finding in findings],
        "times": [np.asarray(finding.times, dtype=np.float64) for finding in findings],
    }
    return _typed(pd.DataFrame(columns, columns=list(COLUMNS)))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """One dtype per column, whatever the rows hold: text is never missing, group and split may be."""
    kinds = {name: "str" for name in (*_TEXT, *_OPTIONAL) if name in frame}
    kinds |= {name: "int64" for name in ("frames", "width", "height") if name in frame}
    kinds |= {name: "float64" for name in ("duration", "fps") if name in frame}
    return frame.astype(kinds)


def write(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a catalog as Parquet (.parquet) or, without the times, as CSV (.csv); the file appears whole or
    not.

    Raises:
        DataError: another suffix.
        OSError: the file cannot be written.
    """
    kind = check_suffix(path)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        if kind == ".csv":
            frame.drop(columns="times", errors="ignore").to_csv(temporary, index=False, lineterminator="\n")
        else:
            frame.to_parquet(temporary, engine="pyarrow", index=False)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A catalog that `write` wrote; from CSV it has no times.

    Raises:
        DataError: not there, another suffix, or no catalog.
    """
    kind = check_suffix(path)
    try:
        if kind == ".csv":
            text = dict.fromkeys((*_TEXT, *_OPTIONAL), "str")
            # Only an empty cell is missing: a class may well be called NA or None.
            frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=dict.fromkeys(_OPTIONAL, ""))
        else:
            frame = pd.read_parquet(path, engine="pyarrow")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; `video-lstm ingest` writes it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no catalog ({error}); write it again with `video-lstm ingest`") from error
    lacking = [name for name in COLUMNS if name not in frame and name != "times"]
    if lacking:
        raise DataError(f"{path} lacks the column {lacking[0]}; write it again with `video-lstm ingest`")
    return _typed(frame)


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The lower-case suffix of a catalog's path.

    Raises:
        DataError: it is neither .parquet nor .csv.
    """
    kind = os.path.splitext(path)[1].lower()
    if kind not in (".parquet", ".csv"):
        raise DataError(f"{path}: a catalog is written as .parquet or .csv")
    return kind


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """{files, ok, failed, reasons: {reason: count}} of a catalog; reasons by falling count."""
    failed = frame.loc[frame["status"] != OK, "status"]
    reasons = {str(reason): int(count) for reason, count in failed.value_counts().items()}
    return {"files": len(frame), "ok": len(frame) - len(failed), "failed": len(failed), "reasons": reasons}


def digest(frame: pd.DataFrame) -> str:
    """sha256 in hex of what the dataset holds: (content digest, label) pairs, in any order, in any place."""
    pairs = sorted([str(content), str(label)] for content, label in zip(frame["digest"], frame["label"], strict=True))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
