"""Ingest: find the clips, decode every file once, split them without leaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import DataConfig
from pipeline.data import catalog, layouts, splits
from pipeline.data.batches import ClipFile
from pipeline.errors import DataError
from pipeline.stages.progress import bar, say

SHOWN = 5
"""Failed files named on the screen; the catalog names all."""


@dataclass(frozen=True)
class Ingested:
    """A data set as the other stages see it.

    Attributes:
        table: the catalog, one row per file, failed files included, `split` filled in every row.
        classes: class names in their order; a clip's label is its position here.
        summary: {files, ok, failed, reasons: {reason: count}}.
        digest: of the contents and labels, whatever the folder is called.
        split_digest: of who is in which split.
    """

    table: pd.DataFrame
    classes: list[str]
    summary: dict[str, Any]
    digest: str
    split_digest: str

    def files(self, split: str) -> list[ClipFile]:
        """The readable clips of one split, in the catalog's order."""
        rows = self.table[(self.table["split"] == split) & (self.table["status"] == "ok")]
        return clip_files(rows, self.classes)

    def failed(self, split: str | None = None) -> list[dict[str, str]]:
        """Path and reason of each file that gave no clip."""
        rows = self.table[self.table["status"] != "ok"]
        return failures(rows if split is None else rows[rows["split"] == split])


def ingest(config: DataConfig, out: Path | None = None, split: bool = True) -> Ingested:
    """Read a data set.

    Args:
        config: where and how.
        out: also write the catalog there (Parquet, or CSV by its suffix).
        split: False leaves the splits as the list gives them (a set to be evaluated as a whole).

    Raises:
        DataError: there is nothing to learn from: no files, fewer than two classes, nothing that decodes.
    """
    if out is not None:
        catalog.check_suffix(out)
    listing = layouts.discover(config)
    with bar("decoding", len(listing.entries)) as advance:
        table = catalog.build(listing.entries, progress=advance)
    summary = catalog.summary(table)
    _report_failures(table, summary, len(listing.ignored))
    if summary["ok"] == 0:
        raise DataError(f"{config.root}: none of the {summary['files']} files can be decoded")
    table = splits.assign(table, config) if split else table.assign(unit=splits.units_of(table))
    if out is not None:
        catalog.write(table, out)
    classes = sorted(set(table["label"]))
    split_digest = splits.split_digest(table) if split else ""
    return Ingested(table, classes, summary, catalog.digest(table), split_digest)


def clip_files(rows: pd.DataFrame, classes: list[str]) -> list[ClipFile]:
    """Rows of a catalog as files to read; a label outside `classes` becomes -1."""
    number = {name: index for index, name in enumerate(classes)}
    columns = (rows[name].tolist() for name in ("path", "label", "times", "duration", "digest"))
    return [
        ClipFile(path, number.get(label, -1), np.asarray(times, dtype=np.float64), duration, digest)
        for path, label, times, duration, digest in zip(*columns, strict=True)
    ]


def failures(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Path and reason of each row, as reports show them."""
    pairs = zip(rows["path"].tolist(), rows["status"].tolist(), strict=True)
    return [{"path": path, "reason": reason} for path, reason in pairs]


def _report_failures(table: pd.DataFrame, summary: dict[str, Any], ignored: int) -> None:
    if ignored:
        say(f"{ignored} files that are neither video nor image were passed over")
    if not summary["failed"]:
        return
    say(f"{summary['failed']} of {summary['files']} files give no clip and are left out:")
    failed = failures(table[table["status"] != "ok"])
    for item in failed[:SHOWN]:
        say(f"  {item['path']}: {item['reason']}")
    if len(failed) > SHOWN:
        say(f"  ... and {len(failed) - SHOWN} more, all named in the catalog")
