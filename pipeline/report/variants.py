"""Scores of the same clips seen in several ways, and what each way costs: clip by clip, over groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.report.bootstrap import TAIL, Floats, entry, group_clips, intervals, resampled
from pipeline.report.tracks import Track


def tally(tracks: Sequence[Track]) -> Floats:
    """float64 (N, 2): per clip the loss summed over what is known, and over how much. A loss is 1 for a wrong answer
    and 0 for a right one, or the absolute error of a number.
    """
    rows = []
    for track in tracks:
        classes = np.issubdtype(track.true.dtype, np.integer)
        count = int((track.true >= 0 if classes else ~np.isnan(track.true)).sum())
        rows.append([track.loss * count if count else 0.0, count])
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def score_of(losses: Floats, groups: Sequence[str], share: bool, seed: int = 0) -> dict[str, float | None]:
    """`score` with `_low` and `_high`: the share of right answers, or the mean absolute error, of (N, 2) losses."""
    grouped = group_clips(groups)

    def score(sums: Floats) -> Floats:
        mean = _mean(sums[..., 0], sums[..., 1])[..., None]
        return 1 - mean if share else mean

    sums = grouped.sums(losses)
    point = score(sums.sum(axis=0))
    low, high = intervals(point, resampled(sums, score, 1000, seed), np.array([float(grouped.count)]), share)
    return entry("score", point[0], low[0], high[0])


def cost_of(
    plain: Floats, other: Floats, groups: Sequence[str], share: bool = True, seed: int = 0
) -> dict[str, float | None]:
    """`cost` with `_low` and `_high`: how much more is lost in the other way than in the plain one.

    The two are paired: each resample draws the same groups for both. Where no clip's loss differs, resampling cannot
    vary: the ends are the exact binomial bound for a group that differs then, as in `intervals`.

    Args:
        plain, other: of `tally`, the same clips in the same order.
        groups: N names.
        share: the losses lie in 0..1.
    """
    grouped = group_clips(groups)

    def cost(sums: Floats) -> Floats:
        return (_mean(sums[..., 2], sums[..., 3]) - _mean(sums[..., 0], sums[..., 1]))[..., None]

    sums = grouped.sums(np.concatenate([plain, other], axis=1))
    point = cost(sums.sum(axis=0))
    trials = float(grouped.count)
    low, high = intervals(point, resampled(sums, cost, 1000, seed), np.array([trials]), shares=False)
    if share and trials > 1 and np.array_equal(plain, other):
        high = np.array([1 - TAIL ** (1 / trials)])
        low = -high
    return entry("cost", point[0], low[0], high[0])


def _mean(total: Floats, count: Floats) -> Floats:
    mean: Floats = total / np.maximum(count, 1)
    return mean


def variant_row(
    name: str, losses: Floats, plain: Floats, groups: Sequence[str], share: bool, **more: Any
) -> dict[str, Any]:
    """A row of a table of variants: `name`, `score` and `cost` with their intervals, and what else is known. The plain
    losses themselves cost nothing, which needs no interval.
    """
    cost = entry("cost", 0.0, np.nan, np.nan) if losses is plain else cost_of(plain, losses, groups, share)
    return {"name": name, **score_of(losses, groups, share), **cost, **more}


def cost_text(row: dict[str, Any]) -> str:
    """What a row loses, with its interval and signs."""
    text = f"{row['cost']:+.3f}" if row["cost"] else "0"
    if row["cost_low"] is not None:
        text += f" [{row['cost_low']:+.2f}, {row['cost_high']:+.2f}]"
    return text.replace("-", "\N{MINUS SIGN}")
