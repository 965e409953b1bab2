"""The table of a cross-validation: a row per fold, what they are on average, and all clips together."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.report.number_metrics import SCORES as NUMBER_SCORES
from pipeline.report.tables import text_table
from pipeline.report.tasks import JUDGED, TITLES
from pipeline.report.text import score_text

POOLED, MEAN, DEVIATION = "pooled", "mean of folds", "deviation of folds"
SHOWN = 3
"""Scores that the screen has room for; the file has all."""


def spread(folds: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """Mean and standard deviation over the folds of each score that all folds have; one fold deviates from nothing.

    Args:
        folds: metrics of each fold's test.
    """
    found = {}
    for key in JUDGED[folds[0]["task"]].scores:
        values = [metrics[key] for metrics in folds]
        if None not in values:
            found[key] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)
    return found


def fold_rows(folds: Sequence[dict[str, Any]], pooled: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per fold with scores, intervals and coverage; then mean and deviation over the folds; then the pooled row.

    The mean of the folds weighs a small fold like a large one. The pooled scores are those of all clips together, each
    answered by the model that never saw its group: these are the ones to quote.
    """
    scores = JUDGED[pooled["task"]].scores
    rows = [_row(str(number), metrics, scores) for number, metrics in enumerate(folds, 1)]
    averages = spread(folds)
    rows.append({"fold": MEAN, **{key: mean for key, (mean, _) in averages.items()}})
    rows.append({"fold": DEVIATION, **{key: deviation for key, (_, deviation) in averages.items()}})
    return [*rows, _row(POOLED, pooled, scores)]


def _row(name: str, metrics: dict[str, Any], scores: Sequence[str]) -> dict[str, Any]:
    numbers = {k: metrics[k] for key in scores for k in (key, f"{key}_low", f"{key}_high")}
    return {"fold": name, **{key: metrics[key] for key in ("n", "expected", "coverage", "groups")}, **numbers}


def write_folds(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The rows as CSV; what a row does not have is an empty field."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def folds_text(folds: Sequence[dict[str, Any]], pooled: dict[str, Any]) -> str:
    """The same as plain text, with the first scores of the task."""
    scores = [key for key in JUDGED[pooled["task"]].scores if key in TITLES][:SHOWN]
    averages = spread(folds)
    lines = [_line(str(number), metrics, scores) for number, metrics in enumerate(folds, 1)]
    lines.append([MEAN, "", "", *(_number(key, averages[key][0] if key in averages else None) for key in scores)])
    lines.append([DEVIATION, "", "", *(_number(key, averages[key][1] if key in averages else None) for key in scores)])
    lines.append(_line(POOLED, pooled, scores))
    return text_table(["fold", "clips", "groups", *(TITLES[key] for key in scores)], lines)


def _line(name: str, metrics: dict[str, Any], scores: Sequence[str]) -> list[str]:
    counts = [f"{metrics['n']}/{metrics['expected']}", str(metrics["groups"])]
    return [name, *counts, *(score_text(metrics, key) for key in scores)]


def _number(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if key in NUMBER_SCORES and key != "r2" else f"{value:.3f}"
