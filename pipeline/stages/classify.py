"""Classify: label files with a trained model, one row per input, nothing lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.catalog import Policy
from pipeline.errors import DataError
from pipeline.report.tables import check_suffix, write_results
from pipeline.stages.find import find_files
from pipeline.stages.predict import Prediction, Predictor
from pipeline.stages.progress import bar, say

SHOWN = 5


@dataclass(frozen=True)
class Classified:
    """What a classification came to: counts, where the table is, and the rows themselves."""

    rows: int
    ok: int
    failed: int
    out: str | None
    reasons: dict[str, int]
    table: list[dict[str, Any]]


def classify(
    predictor: Predictor,
    sources: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    top_k: int = 5,
    workers: int = -1,
    policy: Policy | None = None,
) -> Classified:
    """Label files.

    Args:
        predictor: the model.
        sources: files, folders (searched to any depth), globs, list files (one path a line), folders of images.
        out: table to write: .csv, .jsonl or .parquet.
        top_k: classes named per row.
        workers: decoding processes.
        policy: what a file may cost, and whether a damaged one is labelled; None: as `Predictor.predict`.

    Raises:
        DataError: an input does not exist, holds no video, or nothing could be classified.
    """
    if out is not None:
        check_suffix(out)
        Path(out).parent.mkdir(parents=True, exist_ok=True)  # before the work, which must not be lost for a folder
    paths = find_files([sources] if isinstance(sources, str | Path) else sources)
    rows: list[dict[str, Any]] = []
    with bar("classifying", len(paths)) as advance:
        for prediction in predictor.predict(paths, workers, policy):
            rows.append(result_row(prediction, predictor, top_k))
            advance(1)
    if out is not None:
        write_results(rows, out)
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
    return Classified(len(rows), len(rows) - failed, failed, str(out) if out else None, dict(reasons), rows)


def result_row(prediction: Prediction, predictor: Predictor, top_k: int) -> dict[str, Any]:
    """One row of the results table; a file that could not be read has its reason as status."""
    if prediction.probabilities is None:
        assert prediction.error is not None
        reason, detail = str(prediction.error.reason), prediction.error.detail
        return {"path": prediction.path, "status": reason, "note": detail, "model": predictor.digest}
    p = prediction.probabilities
    order = (-p).argsort(kind="stable")
    runner_up = float(p[order[1]]) if len(order) > 1 else 0.0
    return {
        "path": prediction.path,
        "status": "ok",
        "label": predictor.classes[order[0]],
        "probability": float(p[order[0]]),
        "top_k": [{"label": predictor.classes[i], "probability": float(p[i])} for i in order[:top_k]],
        "margin": float(p[order[0]]) - runner_up,
        "frames": prediction.frames,
        "duration": prediction.duration,
        "note": prediction.note,
        "model": predictor.digest,
        "seconds": prediction.seconds,
    }
