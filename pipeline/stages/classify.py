"""Classify: label files with a trained model, one row per input, nothing lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.catalog import Policy
from pipeline.errors import DataError
from pipeline.report.tables import FLAT, TASK_COLUMNS, check_suffix, write_flat, write_results
from pipeline.stages.distributed import alone
from pipeline.stages.find import find_files
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import bar, say
from pipeline.stages.rows import result_row

SHOWN = 5


@dataclass(frozen=True)
class Classified:
    """What a classification came to: counts, where the table is, and the rows themselves.

    `flat` is where the segments, or the values over time, are once more, a row each; None where the task has neither
    or no table was asked for.
    """

    rows: int
    ok: int
    failed: int
    out: str | None
    reasons: dict[str, int]
    table: list[dict[str, Any]]
    flat: str | None = None


def classify(
    predictor: Predictor,
    sources: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    top_k: int = 5,
    workers: int = -1,
    policy: Policy | None = None,
) -> Classified:
    """Let a model answer to files: a label each, segments of labels, a number, or numbers over time.

    Args:
        predictor: the model.
        sources: files, folders (searched to any depth), globs, list files (one path a line), folders of images.
        out: table to write: .csv, .jsonl or .parquet; of a task with an answer for each moment, NAME.segments.csv or
            NAME.values.csv beside it.
        top_k: classes named per row, where each has one label.
        workers: decoding processes.
        policy: what a file may cost, and whether a damaged one is labelled; None: as `Predictor.predict`.

    Raises:
        DistributedError: several processes were started.
        DataError: an input does not exist, holds no video, or nothing could be classified.
    """
    alone("classify")
    if out is not None:
        check_suffix(out)
        Path(out).parent.mkdir(parents=True, exist_ok=True)  # before the work, which must not be lost for a folder
    paths = find_files([sources] if isinstance(sources, str | Path) else sources)
    rows: list[dict[str, Any]] = []
    with bar("classifying", len(paths)) as advance:
        for prediction in predictor.predict(paths, workers, policy):
            rows.append(result_row(prediction, predictor, top_k))
            advance(1)
    flat = None
    if out is not None:
        columns = TASK_COLUMNS[predictor.task]
        write_results(rows, out, columns)
        for column in set(columns) & set(FLAT):
            flat = str(write_flat(rows, column, out))
    reasons = Counter(row["status"] for row in rows if row["status"] != "ok")
    failed = sum(reasons.values())
    for row in [row for row in rows if row["status"] != "ok"][:SHOWN]:
        say(f"not classified: {row['path']}: {row['status']}" + (f" ({row['note']})" if row["note"] else ""))
    if failed > SHOWN:
        say(f"... and {failed - SHOWN} more")
    partial = sum(row["status"] == "ok" and bool(row["note"]) for row in rows)
    if partial:
        say(f"{partial} damaged files were labelled by what decodes of them; see the column note")
    if failed == len(rows):
        where = f"; the reasons are in {out}" if out else ""
        raise DataError(f"none of the {len(rows)} files could be classified{where}")
    return Classified(len(rows), len(rows) - failed, failed, str(out) if out else None, dict(reasons), rows, flat)
