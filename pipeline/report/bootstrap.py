"""What all metrics share: who counts, groups, and intervals over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
CHUNK = 2_000_000
"""Resampled group indices held in memory at a time."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Which clips are drawn together.

    Attributes:
        of: int64 (N,), number of each clip's group.
        count: G, how many are drawn from.
        sources: how many groups the clips come from; 1 where clips are drawn instead.
    """

    of: Ints
    count: int
    sources: int

    @property
    def note(self) -> str | None:
        """What the intervals cannot tell."""
        if self.sources > 1:
            return None
        return "all scored clips come from one group: intervals are over clips, too narrow"

    def sums(self, rows: NDArray[Any]) -> Floats:
        """Rows (N, C) of clips, added up to float64 (G, C)."""
        total = np.zeros((self.count, rows.shape[1]))
        np.add.at(total, self.of, rows)
        return total


def group_clips(groups: Sequence[str]) -> Groups:
    """Groups by name. Where all clips come from one, each is its own: better an interval that is too narrow, and says
    so, than none.
    """
    names, of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) == 1:
        return Groups(np.arange(len(groups)), len(groups), 1)
    return Groups(of.astype(np.int64), len(names), len(names))


def resampled(columns: NDArray[Any], scores: Callable[[NDArray[Any]], Floats], resamples: int, seed: int) -> Floats:
    """Scores of `resamples` draws of groups with replacement (Efron 1979), float64 (resamples, S).

    The sums of a resample are a weighted sum of the sums of the groups, so all resamples are one matrix product.

    Args:
        columns: (G, C), sums of each group; the product is computed in their precision (float32 is exact for counts
            below 2**24).
        scores: from sums (..., C) to scores (..., S).
    """
    rng = np.random.default_rng(seed)
    groups = len(columns)
    rows = max(1, CHUNK // groups)
    found = []
    for first in range(0, resamples, rows):
        size = min(rows, resamples - first)
        drawn = rng.integers(0, groups, (size, groups)) + groups * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups)
        found.append(scores(weights.astype(columns.dtype) @ columns))
    return np.concatenate(found)


def intervals(point: Floats, samples: Floats, trials: Floats, shares: bool) -> tuple[Floats, Floats]:
    """Both ends of the 95% percentile interval of each score; NaN where fewer than two groups speak of it.

    Args:
        point: (S,), the scores of all groups.
        samples: (R, S), of the resamples; NaN where a resample does not define one.
        trials: (S,), how many groups speak of each.
        shares: the scores lie in 0..1. Where each group is right, or each is wrong, resampling cannot vary and would
            claim certainty: the far end is the exact binomial bound then (Clopper and Pearson 1934), one trial a group.
    """
    low, high = np.full(len(point), np.nan), np.full(len(point), np.nan)
    speaks = (trials > 1) & ~np.isnan(samples).all(axis=0)
    if not speaks.any():
        return low, high
    low[speaks], high[speaks] = np.nanquantile(samples[:, speaks], [TAIL, 1 - TAIL], axis=0)
    if shares:
        bound = TAIL ** (1 / np.maximum(trials, 1))
        low = np.where(speaks & (point == 1), bound, low)
        high = np.where(speaks & (point == 0), 1 - bound, high)
    return low, high


def check_files(paths: Sequence[str], expected: int, failed: Sequence[dict[str, str]]) -> None:
    """One row per file of the split: none twice, none vanished.

    Raises:
        ValueError: one is.
        DataError: nothing was scored.
    """
    not_scored = [entry["path"] for entry in failed]
    twice = [path for path, count in Counter([*paths, *not_scored]).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} file(s) have more than one prediction or outcome, such as {twice[0]}")
    if len(paths) + len(failed) != expected:
        raise ValueError(
            f"{expected} files expected, but {len(paths)} scored and {len(failed)} failed: "
            "every file must be one or the other"
        )
    if not paths:
        reason = f" (the first: {failed[0]['path']}: {failed[0]['reason']})" if failed else ""
        raise DataError(f"none of {expected} clips could be scored{reason}")


def entry(name: str, value: float, low: float, high: float) -> dict[str, float | None]:
    """A score and its interval under their JSON names; NaN, which JSON does not have, becomes None."""
    numbers = {name: value, f"{name}_low": low, f"{name}_high": high}
    return {key: None if np.isnan(number) else float(number) for key, number in numbers.items()}


def format_interval(value: float | None, low: float | None, high: float | None) -> str:
    """`0.873 [0.81, 0.93]`; without an interval the value alone, without a value a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.2f}, {high:.2f}]"
