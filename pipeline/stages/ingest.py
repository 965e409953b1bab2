"""Ingest: find the clips, decode every file once, split them without leaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import DataConfig
from pipeline.data import catalog, folds, layouts, splits
from pipeline.data.clip_file import ClipFile
from pipeline.data.duplicates import Leak, look_alikes
from pipeline.data.layouts import Entry
from pipeline.data.target_text import class_seconds, latest, read_target
from pipeline.errors import DataError
from pipeline.stages.distributed import bytes_from_first, from_first, is_first, place
from pipeline.stages.progress import bar, say

LATE = 1.0
"""Seconds after its end at which a target draws attention: annotators round, and players count the last frame."""

PLAIN = ("classes", "summary", "digest", "split_digest", "task")
"""What JSON holds of `Ingested`."""

SHOWN = 5
"""Failed files named on the screen; the catalog names all."""


@dataclass(frozen=True)
class Ingested:
    """A data set as the other stages see it.

    Attributes:
        table: the catalog, one row per file, failed files included, `split` filled in every row.
        classes: class names in their order; a class's number is its position here; none for the regressions.
        summary: {files, ok, failed, reasons: {reason: count}}.
        digest: of the contents and targets, whatever the folder is called.
        split_digest: of who is in which split.
        leaks: near-duplicates that lie in different splits; empty without a split.
        task: what the targets are for.
    """

    table: pd.DataFrame
    classes: list[str]
    summary: dict[str, Any]
    digest: str
    split_digest: str
    leaks: list[Leak] = field(default_factory=list)
    task: str = "label"

    def files(self, split: str) -> list[ClipFile]:
        """The readable clips of one split, in the catalog's order."""
        rows = self.table[(self.table["split"] == split) & (self.table["status"] == "ok")]
        return clip_files(rows, self.classes)

    def failed(self, split: str | None = None) -> list[dict[str, str]]:
        """Path, reason and detail of each file that gave no clip."""
        rows = self.table[self.table["status"] != "ok"]
        return failures(rows if split is None else rows[rows["split"] == split])


def ingest(
    config: DataConfig,
    out: Path | None = None,
    split: bool = True,
    policy: catalog.Policy | None = None,
    task: str = "label",
) -> Ingested:
    """Read a data set. Interrupted, the same call goes on where it was.

    Args:
        config: where and how.
        policy: which files give a clip.
        out: also write the catalog there (Parquet, or CSV by its suffix).
        split: False leaves the splits as the list gives them (a set to be evaluated as a whole).
        task: what is to be learned: decides which lists are read.

    Of several processes the first reads it and tells the others.

    Raises:
        DataError: there is nothing to learn from: no files, fewer than two classes, nothing that decodes.
    """
    if place().world == 1:
        return _ingest(config, out, split, policy, task)
    found = _ingest(config, out, split, policy, task) if is_first() else None
    plain = from_first(
        lambda: (
            found and {name: getattr(found, name) for name in PLAIN} | {"leaks": [asdict(leak) for leak in found.leaks]}
        )
    )
    table = bytes_from_first(lambda: catalog.packed(found.table) if found else b"")
    if found is not None:
        return found
    return Ingested(**plain | {"table": catalog.unpacked(table), "leaks": [Leak(**leak) for leak in plain["leaks"]]})


def _ingest(config: DataConfig, out: Path | None, split: bool, policy: catalog.Policy | None, task: str) -> Ingested:
    if out is not None:
        catalog.check_suffix(out)
    listing = layouts.discover(config, task)
    say(f"layout {listing.kind}: {len(listing.entries)} clips")
    for note in listing.notes:
        say(note)
    classes = classes_of(listing.entries)
    if split and len(classes) == 1:
        raise DataError(f"{config.root} has the one class '{classes[0]}'; a classifier needs at least two")
    with bar("decoding", len(listing.entries)) as advance:
        table = catalog.build(listing.entries, policy, progress=advance)
    summary = catalog.summary(table)
    _report_failures(table, summary, len(listing.ignored))
    _report_late_targets(table)
    if summary["ok"] == 0:
        raise DataError(f"{config.root}: none of the {summary['files']} files can be decoded")
    if config.folds:
        table = folds.assign_fold(table, config) if split else folds.join_alike(table)
    else:
        table = splits.assign(table, config) if split else table.assign(unit=splits.units_of(table))
    leaks = find_leaks(table) if split else []
    if out is not None:
        catalog.write(table, out)
    split_digest = splits.split_digest(table) if split else ""
    return Ingested(table, classes, summary, catalog.digest(table), split_digest, leaks, task)


def classes_of(entries: Sequence[Entry]) -> list[str]:
    """The classes that occur, of clips or of their moments, in their order; none where there are values."""
    found = {entry.label for entry in entries if not entry.target}
    return sorted(found.union(*(class_seconds(entry.target, math.inf) for entry in entries)))


def find_leaks(table: pd.DataFrame) -> list[Leak]:
    """Near-duplicates that lie in different splits of a catalog, named on the screen."""
    leaks = look_alikes(table)
    if leaks:
        say(f"{len(leaks)} pairs of near-duplicates lie in different splits:")
    for leak in leaks[:SHOWN]:
        say(f"  {leak.path} ({leak.split}) looks like {leak.other} ({leak.other_split})")
    if len(leaks) > SHOWN:
        say(f"  ... and {len(leaks) - SHOWN} more")
    return leaks


def clip_files(rows: pd.DataFrame, classes: list[str]) -> list[ClipFile]:
    """Rows of a catalog as files to read; a class outside `classes` becomes -1."""
    number = {name: index for index, name in enumerate(classes)}
    columns = (rows[name].tolist() for name in ("path", "label", "target", "duration", "clip", "first"))
    known = rows["times"].tolist() if "times" in rows else [times for times, _ in catalog.details(rows)]
    return [
        ClipFile(path, read_target(text, label, number), np.asarray(times, dtype=np.float64), duration, clip, first)
        for (path, label, text, duration, clip, first), times in zip(zip(*columns, strict=True), known, strict=True)
    ]


def clip_names(rows: pd.DataFrame) -> list[str]:
    """The path of each clip; of a segment with its bounds in seconds, as media fragments have them: a.mp4#t=1,2.5."""
    columns = (rows[name].tolist() for name in ("path", "start", "end"))
    return [
        path if math.isnan(start) and math.isnan(end) else f"{path}#t={_seconds(start)},{_seconds(end)}"
        for path, start, end in zip(*columns, strict=True)
    ]


def _seconds(bound: float) -> str:
    return "" if math.isnan(bound) else f"{bound:g}"


def failures(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Name, reason and detail of each row, as reports show them."""
    columns = (rows[name].tolist() for name in ("status", "detail"))
    return [
        {"path": name, "reason": reason, "detail": detail}
        for name, reason, detail in zip(clip_names(rows), *columns, strict=True)
    ]


def _report_late_targets(table: pd.DataFrame) -> None:
    """Targets after the end of their file are most often frame numbers where seconds are wanted."""
    rows = table[(table["status"] == "ok") & (table["target"] != "")]
    late = [
        (path, moment, duration)
        for path, text, duration in zip(rows["path"], rows["target"], rows["duration"], strict=True)
        if (moment := latest(text)) > duration + LATE
    ]
    if late:
        path, moment, duration = late[0]
        say(
            f"{len(late)} of {len(rows)} files have targets after their end, such as {path}: {moment:g} s in a file of "
            f"{duration:.1f} s; are the times in the list seconds after the first frame?"
        )


def _report_failures(table: pd.DataFrame, summary: dict[str, Any], ignored: int) -> None:
    if ignored:
        say(f"{ignored} files that are no clip of a class were passed over")
    if not summary["failed"]:
        return
    say(f"{summary['failed']} of {summary['files']} files give no clip and are left out:")
    failed = failures(table[table["status"] != "ok"])
    for item in failed[:SHOWN]:
        say(f"  {item['path']}: {item['reason']}" + (f" ({item['detail']})" if item["detail"] else ""))
    if len(failed) > SHOWN:
        say(f"  ... and {len(failed) - SHOWN} more, all named in the catalog")
