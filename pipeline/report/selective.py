"""Answering only when sure: how many answers are kept at each confidence, and how many of those are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.bootstrap import Floats, entry, group_clips, intervals, resampled

POINTS = 1000
"""Most rows of a table of thresholds; more answers are thinned evenly."""


def thresholds(confidence: Floats, right: NDArray[np.bool_]) -> list[list[float]]:
    """What each threshold keeps: rows `[threshold, kept, right]`, the surest first.

    Answers of the same confidence are kept together or not at all.

    Args:
        confidence: (N,) probability of the answer.
        right: (N,) whether it is right.
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, hits = confidence[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, True))  # of each run of equal confidence
    if len(last) > POINTS:
        last = last[np.linspace(0, len(last) - 1, POINTS).round().astype(int)]
    return [[float(sorted_confidence[i]), int(i + 1), int(hits[i])] for i in last]


def threshold_for(table: Sequence[Sequence[float]], precision: float) -> float | None:
    """The lowest threshold at which at least this share of the kept answers is right: the one that keeps most.

    Args:
        table: of `thresholds`.
        precision: in 0..1.

    Returns:
        None where no threshold reaches it.
    """
    reached = [row for row in table if row[2] / row[1] >= precision]
    return float(reached[-1][0]) if reached else None


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """The risk-coverage curve (El-Yaniv and Wiener 2010) and the area under it.

    Returns:
        `curve`, rows `{threshold, coverage, risk}`, the surest first: the share of answers kept and the share of those
        that is wrong; `aurc`, the mean risk over all coverages (Geifman and El-Yaniv 2017), 0 at best.
    """
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(order) + 1)
    risks = 1 - np.cumsum(right[order]) / kept
    rows = [
        {"threshold": threshold, "coverage": count / len(order), "risk": 1 - hits / count}
        for threshold, count, hits in thresholds(confidence, right)
    ]
    return {"curve": rows, "aurc": float(risks.mean())}


def selected(
    confidence: Floats, right: NDArray[np.bool_], groups: Sequence[str], threshold: float, seed: int = 0
) -> dict[str, Any]:
    """What a threshold that was chosen elsewhere keeps here.

    Returns:
        `kept`, how many answers; `coverage`, their share, and `precision`, the share of them that is right, each with
        `_low` and `_high` (95%, over groups); precision None where nothing is kept.
    """
    keeps = confidence >= threshold
    grouped = group_clips(groups)
    columns = grouped.sums(np.stack([np.ones(len(keeps)), keeps, keeps & right], axis=1))
    point = _rates(columns.sum(axis=0))
    speaking = np.array([float(grouped.count), float((columns[:, 1] > 0).sum())])
    low, high = intervals(point, resampled(columns, _rates, 1000, seed), speaking, shares=True)
    return {
        "kept": int(keeps.sum()),
        **entry("coverage", point[0], low[0], high[0]),
        **entry("precision", point[1], low[1], high[1]),
    }


def _rates(sums: Floats) -> Floats:
    """(..., 2) coverage and precision of sums (..., 3): answers, kept, kept and right."""
    answers, kept, right = np.moveaxis(sums, -1, 0)
    precision = np.where(kept > 0, right / np.maximum(kept, 1), np.nan)
    rates: Floats = np.stack([kept / answers, precision], axis=-1)
    return rates
