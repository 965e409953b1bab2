"""Two models on the same clips: which one is better, and could it be chance?

Both answered to the same clips, so only the clips on which they differ say anything. McNemar's test (1947), in its
exact form, asks of these whether one model is right more often than a fair coin. It takes clips for independent of
each other; clips that were cut from one source are not, so the interval of the difference comes from a bootstrap over
sources. Neither test assumes a distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.bootstrap import Floats, entry, group_clips, intervals, resampled

LEVEL = 0.05
"""Two-sided probability of an error of the first kind that is accepted; the intervals are those of 95%."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Probability, two-sided and exact, of a split at least as uneven as this one if both models are equally good.

    Args:
        only_a: clips that the first model alone got right.
        only_b: clips that the second alone got right.

    Returns:
        In (0, 1]; 1 where they differ on no clip.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    term = tail = 1  # binomial coefficients, in whole numbers: no size of n costs a digit
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n) if n < 1000 else min(1.0, _ratio(2 * tail, n))


def _ratio(above: int, power: int) -> float:
    """`above` / 2**power, where neither fits into a float."""
    shift = max(0, above.bit_length() - 64)
    return math.ldexp(float(above >> shift), shift - power)


def difference(
    a: NDArray[Any], b: NDArray[Any], groups: Sequence[str], resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The mean score of the first model minus that of the second, with its paired bootstrap interval.

    Whole groups are drawn (Efron 1979), for both models the same, so what makes a clip hard for both cancels.

    Args:
        a: float64 (N, 2), per clip the sum of a score over what is scored (a clip: one; over time: its moments) and
            how many that are.
        b: (N, 2), the same of the other model on the same clips.
        groups: N names of the source each clip was cut from.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        `a` and `b`, the mean scores; `difference`, `difference_low`, `difference_high` (None: a single clip);
        `groups`, their number; `note`, what the interval cannot tell, or None.

    Raises:
        ValueError: no clips, shapes that do not fit, or a clip with nothing scored.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.shape[1:] != (2,) or len(groups) != len(a) or not len(a):
        raise ValueError(f"scores {a.shape} and {b.shape} of {len(groups)} groups do not fit")
    if min(a[:, 1].min(), b[:, 1].min()) <= 0:
        raise ValueError("a clip has nothing that is scored")
    grouped = group_clips(groups)
    columns = grouped.sums(np.concatenate([a, b], axis=1))
    point = _means(columns.sum(axis=0))
    samples = resampled(columns, lambda sums: _means(sums)[..., 2:], resamples, seed)
    low, high = intervals(point[2:], samples, np.array([float(grouped.count)]), shares=False)
    note = grouped.note
    if np.array_equal(a, b):
        note = "; ".join(filter(None, [note, "the models score the same on every clip"]))
    return {
        "a": float(point[0]),
        "b": float(point[1]),
        **entry("difference", point[2], low[0], high[0]),
        "groups": grouped.sources,
        "note": note,
    }


def _means(sums: Floats) -> Floats:
    """(..., 3): both means and their difference, from the sums (..., 4)."""
    a, b = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
    return np.stack([a, b, a - b], axis=-1)


def verdict(found: dict[str, Any], p: float | None, higher: bool) -> str:
    """`a`, `b` or `undecided`: which model is better, beyond chance.

    Args:
        found: of `difference`.
        p: of `mcnemar`; None where the answers are not right or wrong.
        higher: a higher score is better; False: the score is an error.

    Both have to agree: McNemar's test at `LEVEL`, and the interval of the difference, which must leave out 0.
    """
    low, high = found["difference_low"], found["difference_high"]
    if low is None or high is None or low <= 0 <= high or (p is not None and p >= LEVEL):
        return "undecided"
    return "a" if (low > 0) == higher else "b"
