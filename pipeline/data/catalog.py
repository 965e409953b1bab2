"""The catalog: a table with one row per clip, whatever became of its file.

The table in memory holds what a split needs. The timestamps, most of the bytes, stay in the findings on disk and are
streamed from there into the written catalog.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.config import LimitsConfig
from pipeline.config.folders import cache_dir
from pipeline.data.clip_file import Policy
from pipeline.data.examine import MADE_BY, Job, examine
from pipeline.data.findings import OK, Finding, Findings, kind_of
from pipeline.data.layouts import Entry
from pipeline.data.layouts.entries import printable
from pipeline.data.pool import Lost, Pool
from pipeline.data.target_text import commonest, targets
from pipeline.data.targets import SLACK
from pipeline.errors import DataError, Reason

__all__ = ["COLUMNS", "OK", "Policy", "build", "details", "digest", "read", "summary", "write"]

COLUMNS = (
    "path", "label", "target", "group", "split", "start", "end", "first", "frames", "duration", "fps", "width",
    "height", "codec", "digest", "clip", "status", "detail", "marks",
)  # fmt: skip

_TEXT = ("path", "label", "target", "codec", "digest", "clip", "status", "detail", "marks")
_OPTIONAL = ("group", "split", "unit")
_WHOLE = ("first", "frames", "width", "height")
_REAL = ("start", "end", "duration", "fps")

COMMIT_EVERY = 64
"""Files after which what was found is made to outlast a kill."""

ROW_GROUP = 1000
"""Rows that are in memory as Python objects, or with their timestamps, at a time."""


def build(
    entries: Sequence[Entry],
    policy: Policy | None = None,
    workers: int | None = None,
    progress: Callable[[int], Any] | None = None,
    cache: str | None = None,
) -> pd.DataFrame:
    """Hash and decode every file once, in processes that may crash, hang or be stopped.

    What was found is remembered on the way: interrupted, the same call goes on where it was, and files that did not
    change are not read again.

    Args:
        entries: what `layouts.discover` found.
        policy: which files give a clip.
        workers: processes; None: one per core, at most 8; 0: this process alone, where a crash is a crash.
        progress: called with the number of clips just done.
        cache: folder of remembered results; None: `cache_dir()`.

    Returns:
        One row per entry, in entry order, with the columns `COLUMNS`. `status` is "ok" or a `Reason`; `group`,
        `split`, `start` and `end` are missing (NaN) where there is none. `target` is that of a task without a class
        per clip, see `target_text`; `label` is then its commonest class, or empty. `first` is the number within the
        file of the clip's first frame, `clip` identifies the clip by content, wherever it lies. `marks` says what is
        unusual about a file, separated by semicolons.
    """
    policy = policy or Policy()
    folder = cache_dir() if cache is None else cache
    tick = progress or (lambda _: None)
    with Findings(folder, MADE_BY) as store:
        lost = _examine(entries, policy.limits, workers, tick, folder, store)
        parts = []
        for start in range(0, len(entries), ROW_GROUP):
            part = entries[start : start + ROW_GROUP]
            rows = [_row(entry, lost.get(entry.path) or _known(store, entry.path), policy) for entry in part]
            parts.append(_typed(pd.DataFrame(rows, columns=list(COLUMNS))))
    return pd.concat(parts, ignore_index=True) if parts else _typed(pd.DataFrame(columns=list(COLUMNS)))


def _examine(
    entries: Sequence[Entry],
    limits: LimitsConfig,
    workers: int | None,
    tick: Callable[[int], Any],
    cache: str,
    store: Findings,
) -> dict[str, Finding]:
    """Fill the store; returns the findings of the paths that it cannot hold (nothing to hash, or a lost process)."""
    clips: dict[str, int] = {}
    for entry in entries:
        clips[entry.path] = clips.get(entry.path, 0) + 1
    new = [path for path in clips if store.at(path) is None]
    tick(len(entries) - sum(clips[path] for path in new))
    lost: dict[str, Finding] = {}
    if not new:
        return lost
    processes = min(8, os.cpu_count() or 1) if workers is None else workers
    with Pool(min(processes, len(new)), limits.seconds, limits.memory) as pool:
        jobs = (Job(path, cache, limits.megapixels) for path in new)
        for number, (path, result) in enumerate(zip(new, pool.run(examine, jobs), strict=True), 1):
            if isinstance(result, Lost):
                lost[path] = Finding(str(result.reason), result.detail)
            elif result.lasting:
                store.add(path, result.finding, result.seen)
            if not isinstance(result, Lost) and not (result.lasting and result.seen):
                lost[path] = result.finding
            if number % COMMIT_EVERY == 0:
                store.commit()
            tick(clips[path])
    return lost


def _known(store: Findings, path: str) -> Finding:
    return store.at(path) or Finding(str(Reason.NOT_READABLE), "it changed while it was being read; try again")


def _row(entry: Entry, finding: Finding, policy: Policy) -> dict[str, Any]:
    """One clip by the rules of the policy."""
    status, detail = _verdict(finding, policy)
    times, first = finding.times, 0
    if status == OK:
        times, first = segment(finding.times, entry.start, entry.end)
        if len(times) < policy.limits.min_frames:
            status, detail = str(Reason.TOO_SHORT), _too_short(entry, finding, len(times), policy.limits.min_frames)
    usable = status == OK
    step = float(np.median(np.diff(times))) if usable and len(times) > 1 else 0.0
    duration = float(times[-1] - times[0]) + step if usable else 0.0
    whole = entry.start is None and entry.end is None
    return {
        "path": printable(entry.path),
        "label": entry.label or commonest(entry.target, duration) or commonest(entry.target, math.inf),
        "target": entry.target,
        "group": entry.group,
        "split": entry.split,
        "start": entry.start,
        "end": entry.end,
        "first": first if usable else 0,
        "frames": len(times) if usable else 0,
        "duration": duration,
        "fps": 1.0 / step if step else 0.0,
        "width": finding.width,
        "height": finding.height,
        "codec": finding.codec,
        "digest": finding.digest,
        "clip": finding.digest if whole else identity(finding.digest, entry.start, entry.end),
        "status": status,
        "detail": detail,
        "marks": "; ".join((*(["truncated"] if finding.damage else []), *finding.marks)),
    }


def _verdict(finding: Finding, policy: Policy) -> tuple[str, str]:
    """Status and detail of a whole file; what was found under other limits is judged by today's."""
    if finding.status != OK:
        return finding.status, finding.detail
    if finding.width * finding.height > policy.limits.megapixels * 1e6:
        return str(Reason.TOO_LARGE), f"{finding.width}x{finding.height}"
    if finding.damage and policy.partial == "reject":
        return str(Reason.TRUNCATED), finding.damage
    return OK, finding.damage


def _too_short(entry: Entry, finding: Finding, found: int, wanted: int) -> str:
    if entry.start is None and entry.end is None:
        return f"{found} frames, {wanted} wanted"
    length = float(finding.times[-1] - finding.times[0])
    upto = "its end" if entry.end is None else f"{entry.end:g} s"
    return f"{found} frames from {entry.start or 0:g} s to {upto}; the last frame is at {length:.3f} s"


def segment(times: NDArray[np.float64], start: float | None, end: float | None) -> tuple[NDArray[np.float64], int]:
    """The timestamps of a part of a file, and the number of its first frame.

    Args:
        times: float64 (N,) of the whole file, N >= 1.
        start, end: seconds after the first frame; frames with start <= time < end belong to it.
    """
    since = times - times[0]
    low = 0 if start is None else int(np.searchsorted(since, start - SLACK))
    high = len(times) if end is None else int(np.searchsorted(since, end - SLACK))
    return times[low : max(low, high)], low


def identity(content: str, start: float | None, end: float | None) -> str:
    """What a segment is recognised by: 64 hex digits made of its file's content and its bounds; "" without content."""
    if not content:
        return ""
    return hashlib.sha256(json.dumps([content, start, end]).encode()).hexdigest()


def details(frame: pd.DataFrame, cache: str | None = None) -> Iterator[tuple[NDArray[np.float64], Finding | None]]:
    """Per row the clip's timestamps (float64 (frames,), empty for a clip that failed) and its file's finding."""
    with Findings(cache_dir() if cache is None else cache, MADE_BY) as store:
        columns = (frame[name].tolist() for name in ("path", "digest", "first", "frames"))
        for path, content, first, frames in zip(*columns, strict=True):
            finding = store.of(content, kind_of(path)) if content else None
            times = finding.times[first : first + frames] if finding else np.zeros(0)
            yield times, finding


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """One dtype per column, whatever the rows hold: text is never missing, group and split may be."""
    kinds = {name: "str" for name in (*_TEXT, *_OPTIONAL) if name in frame}
    kinds |= {name: "int64" for name in _WHOLE if name in frame}
    kinds |= {name: "float64" for name in _REAL if name in frame}
    return frame.astype(kinds)


def write(frame: pd.DataFrame, path: str | os.PathLike[str], cache: str | None = None) -> None:
    """Write a catalog as Parquet (.parquet), with the times of every frame, or without them as CSV (.csv).

    The file appears whole or not.

    Raises:
        DataError: another suffix.
        OSError: the file cannot be written.
    """
    kind = check_suffix(path)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        if kind == ".csv":
            frame.to_csv(temporary, index=False, lineterminator="\n")
        else:
            _write_parquet(frame, temporary, cache)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def packed(frame: pd.DataFrame) -> bytes:
    """A catalog with the times of every frame, as bytes."""
    buffer = io.BytesIO()
    _write_parquet(frame, buffer, None)
    return buffer.getvalue()


def unpacked(content: bytes) -> pd.DataFrame:
    """The inverse of `packed`; the times are a column."""
    return _typed(pd.read_parquet(io.BytesIO(content), engine="pyarrow"))


def _write_parquet(frame: pd.DataFrame, path: str | io.BytesIO, cache: str | None) -> None:
    empty = pa.Table.from_pandas(frame.iloc[:0], preserve_index=False)
    schema = empty.append_column("times", pa.array([], pa.list_(pa.float64()))).schema.remove_metadata()
    times = details(frame, cache)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(frame), ROW_GROUP):
            part = frame.iloc[start : start + ROW_GROUP]
            rows = pa.Table.from_pandas(part, preserve_index=False)
            column = pa.array([next(times)[0] for _ in range(len(part))], pa.list_(pa.float64()))
            writer.write_table(rows.append_column("times", column).cast(schema))


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
            frame = pd.read_csv(
                path, dtype=text, keep_default_na=False, na_values=dict.fromkeys((*_OPTIONAL, *_REAL), "")
            )
        else:
            frame = pd.read_parquet(path, engine="pyarrow")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; `video-lstm ingest` writes it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no catalog ({error}); write it again with `video-lstm ingest`") from error
    lacking = [name for name in COLUMNS if name not in frame]
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
    """sha256 in hex of what the dataset holds: (clip, label or target) pairs, in any order, in any place."""
    pairs = sorted([str(content), text] for content, text in zip(frame["clip"], targets(frame), strict=True))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
