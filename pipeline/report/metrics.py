"""Classes of clips, from predictions to honest numbers: one prediction per file, intervals and coverage beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.bootstrap import Floats, Ints, check_files, entry, group_clips, intervals, resampled


@dataclass(frozen=True)
class Statistics:
    """Everything the metrics are a function of, as counts that add up over clips and over groups.

    A leading axis (groups, resamples) may stand before the shapes given here; K is the number of classes.

    Attributes:
        correct: (..., K) clips of the class that were given their own class.
        support: (..., K) clips of the class.
        predicted: (..., K) clips that were given the class.
        within: (...) clips whose class is among the k most probable.
    """

    correct: NDArray[Any]
    support: NDArray[Any]
    predicted: NDArray[Any]
    within: NDArray[Any]

    def stacked(self) -> NDArray[Any]:
        """(..., 3K + 1) columns, for one matrix product."""
        parts = (self.correct, self.support, self.predicted, self.within[..., None])
        return np.concatenate(parts, axis=-1)

    @staticmethod
    def unstacked(columns: NDArray[Any]) -> Statistics:
        """The inverse of `stacked`."""
        k = (columns.shape[-1] - 1) // 3
        return Statistics(columns[..., :k], columns[..., k : 2 * k], columns[..., 2 * k : 3 * k], columns[..., -1])


def evaluate_predictions(
    paths: Sequence[str],
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    groups: Sequence[str],
    expected: int,
    failed: Sequence[dict[str, str]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every number of an evaluation, ready for JSON.

    Intervals are 95% percentile bootstrap intervals over groups (Efron 1979; whole clusters are drawn, since
    clips of one source are not independent). Where every clip is right, or every clip wrong, resampling
    cannot vary and would claim certainty: there the far end is the exact binomial bound (Clopper and Pearson
    1934) with one trial per group, exact for rates and a guide for F1. Where all clips come from one group,
    clips are drawn instead and `note` says so; a single clip has no interval, both ends are None.

    Macro F1 is the mean over the classes that occur in the labels or in the predictions; a class that occurs
    in neither has None for precision, recall and F1, and any other 0/0 counts as 0, as in scikit-learn.

    Args:
        paths: N files, each once.
        labels: (N,) integers in [0, K).
        probabilities: (N, K) in [0, 1], rows summing to 1.
        classes: the K class names in the order of the columns.
        groups: N names of the source each clip was cut from.
        expected: how many files the split names, scored or not.
        failed: one `{"path": ..., "reason": ...}` for each file that was not scored.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        `task`; `top1`, `top5` (k = min(5, K)) and `macro_f1`, each with `_low` and `_high`; `n`, `expected`,
        `coverage` (n / expected), `failed`; `majority` `{class, rate}`, what always answering the commonest
        class would score; `per_class`, a list of `{class, support, precision, recall, f1}` with `_low` and
        `_high`; `confusion`, K x K counts with true classes as rows; `log_loss` in nats; `groups`, their
        number; `note`, what the intervals cannot tell, or None.

    Raises:
        ValueError: a path twice, shapes that do not fit, labels or probabilities out of range, or files that
            are neither scored nor listed as failed.
        DataError: nothing was scored.
    """
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    check_files(paths, expected, failed)
    _check_numbers(len(paths), labels, probabilities, len(classes), groups)
    k = len(classes)
    labels = labels.astype(np.int64)
    predicted = probabilities.argmax(axis=1)
    grouped = group_clips(groups)
    per_group = statistics(labels, predicted, _within(labels, probabilities), grouped.of, grouped.count, k)
    total = Statistics.unstacked(per_group.stacked().sum(axis=0))
    point = class_scores(total)
    columns = per_group.stacked().astype(np.float32)  # exact for counts below 2**24
    samples = resampled(columns, lambda sums: class_scores(Statistics.unstacked(sums)), resamples, seed)
    trials = np.concatenate([np.full(3, float(grouped.count)), np.tile(speaking(per_group), 3)])
    low, high = intervals(point, samples, trials, shares=True)
    confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    commonest = int(total.support.argmax())
    own = probabilities[np.arange(len(labels)), labels]
    return {
        "task": "label",
        **entry("top1", point[0], low[0], high[0]),
        **entry("top5", point[1], low[1], high[1]),
        **entry("macro_f1", point[2], low[2], high[2]),
        "n": len(paths),
        "expected": expected,
        "coverage": len(paths) / expected,
        "failed": [dict(entry) for entry in failed],
        "majority": {"class": classes[commonest], "rate": float(total.support[commonest] / len(paths))},
        "per_class": per_class_rows(classes, total.support, point[3:], low[3:], high[3:]),
        "confusion": confusion.tolist(),
        "log_loss": float(-np.log(np.clip(own, np.finfo(np.float64).tiny, 1)).mean()),
        "groups": grouped.sources,
        "note": grouped.note,
    }


def _check_numbers(n: int, labels: NDArray[Any], probabilities: Floats, k: int, groups: Sequence[str]) -> None:
    """Shapes and ranges of what `evaluate_predictions` is handed."""
    if labels.shape != (n,) or probabilities.shape != (n, k) or len(groups) != n:
        raise ValueError(
            f"{n} paths and {k} classes, but labels {labels.shape}, probabilities {probabilities.shape}, "
            f"{len(groups)} groups"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"labels must be integers from 0 to {k - 1}")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        raise ValueError("probabilities must be finite and not negative")
    if np.abs(probabilities.sum(axis=1) - 1).max() > 1e-2:
        raise ValueError("probabilities of a clip must sum to 1 (were these logits?)")


def _within(labels: Ints, probabilities: Floats, k: int = 5) -> NDArray[np.bool_]:
    """(N,) whether the true class is among the k most probable; ties go to the lower index, as in argmax."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = (probabilities > own).sum(axis=1) + ((probabilities == own) & earlier).sum(axis=1)
    inside: NDArray[np.bool_] = rank < k
    return inside


def statistics(
    labels: Ints, predicted: Ints, within: NDArray[np.bool_], group_of: Ints, groups: int, k: int
) -> Statistics:
    """Counts with a leading axis of groups."""

    def count(which: Ints, rows: NDArray[np.bool_] | slice = slice(None)) -> Ints:
        return np.bincount(group_of[rows] * k + which[rows], minlength=groups * k).reshape(groups, k)

    return Statistics(
        correct=count(labels, labels == predicted),
        support=count(labels),
        predicted=count(predicted),
        within=np.bincount(group_of[within], minlength=groups),
    )


def speaking(per_group: Statistics) -> Floats:
    """(K,) how many groups say something about each class."""
    return (per_group.support + per_group.predicted > 0).sum(axis=0).astype(np.float64)


def class_scores(counts: Statistics) -> Floats:
    """(..., 3 + 3K): top-1, top-k, macro F1, then precision, recall, F1 of each class; NaN: undefined."""
    correct, support, predicted = (
        part.astype(np.float64) for part in (counts.correct, counts.support, counts.predicted)
    )
    occurs = support + predicted > 0

    def ratio(above: Floats, below: Floats) -> Floats:
        value: Floats = np.where(occurs, above / np.maximum(below, 1), np.nan)
        return value

    f1 = ratio(2 * correct, support + predicted)
    n = support.sum(axis=-1)
    overall = (
        correct.sum(axis=-1) / n,
        counts.within / n,
        np.where(occurs, f1, 0).sum(axis=-1) / occurs.sum(axis=-1),
    )
    per_class = (ratio(correct, predicted), ratio(correct, support), f1)
    return np.concatenate([np.stack(overall, axis=-1), *per_class], axis=-1)


def per_class_rows(
    classes: Sequence[str], support: Ints, point: Floats, low: Floats, high: Floats
) -> list[dict[str, Any]]:
    """One row per class, from precision, recall and F1 (3K,) as `class_scores` has them at its end."""
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(classes):
        row: dict[str, Any] = {"class": name, "support": int(support[index])}
        for offset, score in enumerate(("precision", "recall", "f1")):
            column = offset * len(classes) + index
            row.update(entry(score, point[column], low[column], high[column]))
        rows.append(row)
    return rows
