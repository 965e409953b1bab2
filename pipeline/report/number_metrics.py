"""Numbers, one per clip or one per moment: how far off they are, beside what always answering the mean would be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.report.bootstrap import Floats, check_files, entry, group_clips, intervals, resampled

SCORES = ("mae", "rmse", "r2")


def evaluate_numbers(
    task: Literal["regression", "frame_regression"],
    paths: Sequence[str],
    targets: Sequence[NDArray[Any]],
    values: Sequence[NDArray[Any]],
    mean: float,
    groups: Sequence[str],
    expected: int,
    failed: Sequence[dict[str, str]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every number of an evaluation of numbers, ready for JSON.

    All known targets of all clips count alike, so long clips weigh more where there is one per moment. R2 is the share
    of the scored targets' own variance that is explained: 1 - sum of squared errors / sum of squared distances to
    their mean. It is None where they do not vary. Intervals are 95% percentile bootstrap intervals over groups.

    Args:
        task: for the result.
        paths: N files, each once.
        targets: per clip (T,), or (1,) where a clip has one; NaN where nothing is known.
        values: per clip, the same shape: what the model answers.
        mean: of the training targets; always answering it is the baseline.
        groups: N names of the source each clip was cut from.
        expected, failed, resamples, seed: as of `evaluate_predictions`.

    Returns:
        `task`; `mae`, `rmse` in the target's unit and `r2`, each with `_low` and `_high`; `n`, `expected`, `coverage`
        and `failed`, in clips; `moments`, how many targets count; `baseline` `{value, mae, rmse, r2}`; `groups` and
        `note`.

    Raises:
        ValueError: a path twice, shapes that do not fit, values that are not finite, or files that are neither scored
            nor listed as failed.
        DataError: nothing was scored, or no target is known.
    """
    check_files(paths, expected, failed)
    _check_numbers(paths, targets, values, groups)
    sums = np.array([_sums(np.asarray(t), np.asarray(v), mean) for t, v in zip(targets, values, strict=True)])
    grouped = group_clips(groups)
    columns = grouped.sums(sums)
    total = columns.sum(axis=0)
    if not total[0]:
        raise DataError(f"none of the targets of {len(paths)} clips is known: there is nothing to compare with")
    point = _scores(total)
    trials = np.full(len(SCORES), float(grouped.count))
    low, high = intervals(point, resampled(columns, _scores, resamples, seed), trials, shares=False)
    scores: dict[str, Any] = {}
    for index, name in enumerate(SCORES):
        scores |= entry(name, point[index], low[index], high[index])
    always = _scores(total[[0, 5, 3, 3, 4, 5]])  # the error of the mean is the offset
    baseline = {name: None if np.isnan(x) else float(x) for name, x in zip(SCORES, always, strict=True)}
    return {
        "task": task,
        **scores,
        "n": len(paths),
        "expected": expected,
        "coverage": len(paths) / expected,
        "failed": [dict(one) for one in failed],
        "moments": int(total[0]),
        "baseline": {"value": mean, **baseline},
        "groups": grouped.sources,
        "note": grouped.note,
    }


def _sums(targets: NDArray[Any], values: NDArray[Any], mean: float) -> list[float]:
    """Of a clip: how many targets, then the sums of |error|, error^2, offset^2, offset and |offset|.

    An offset is a target's distance to the training mean: sums of squares of targets far from 0 would lose their
    digits.
    """
    given = ~np.isnan(targets)
    offset = targets[given].astype(np.float64) - mean
    error = values[given].astype(np.float64) - mean - offset
    sums = (given, np.abs(error), error**2, offset**2, offset, np.abs(offset))
    return [float(values.sum()) for values in sums]


def _scores(sums: NDArray[Any]) -> Floats:
    """Sums (..., 6) of `_sums` to MAE, RMSE and R2; NaN where nothing counts, and where the targets do not vary."""
    count, absolute, squares, own, offset, _ = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        variation = own - offset**2 / count
        varies = variation > 1e-12 * own  # what is left of equal targets is rounding
        r2 = np.where(varies, 1 - squares / variation, np.nan)
        return np.stack([absolute / count, np.sqrt(squares / count), r2], axis=-1)


def _check_numbers(paths: Sequence[str], targets: Sequence[Any], values: Sequence[Any], groups: Sequence[str]) -> None:
    if not len(paths) == len(targets) == len(values) == len(groups):
        raise ValueError(
            f"{len(paths)} paths, but {len(targets)} targets, {len(values)} predictions, {len(groups)} groups"
        )
    for path, target, value in zip(paths, targets, values, strict=True):
        if np.ndim(target) != 1 or np.shape(target) != np.shape(value):
            raise ValueError(f"{path}: targets {np.shape(target)} and predictions {np.shape(value)} do not fit")
        if not np.isfinite(value).all() or np.isinf(target).any():
            raise ValueError(f"{path}: predictions must be finite, and targets finite or unknown (NaN)")
