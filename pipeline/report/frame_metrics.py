"""A label for each moment: accuracy over moments, and whether the segments are the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.report.bootstrap import Floats, Ints, check_files, entry, group_clips, intervals, resampled
from pipeline.report.metrics import Statistics, class_scores, per_class_rows, speaking, statistics
from pipeline.report.segments import OVERLAPS, count_matches, edit_score, find_segments

SCORES = ("frame_accuracy", "macro_f1", "edit", *(f"f1_{overlap * 100:.0f}" for overlap in OVERLAPS))
SEGMENT_COLUMNS = 2 + 3 * len(OVERLAPS)


@dataclass(frozen=True)
class Sequences:
    """Labels over time of some clips, one array (T,) each.

    Attributes:
        true: int64, -1 where a moment has no label.
        predicted: int64.
        own: float64, probability of the true label; of no meaning where there is none.
    """

    true: list[Ints]
    predicted: list[Ints]
    own: list[Floats]


def evaluate_frames(
    paths: Sequence[str],
    labels: Sequence[NDArray[Any]],
    probabilities: Sequence[NDArray[Any]],
    classes: Sequence[str],
    groups: Sequence[str],
    expected: int,
    failed: Sequence[dict[str, str]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every number of an evaluation of labels over time, ready for JSON.

    Moments without a label are left out everywhere. Accuracy, macro F1, confusion and log loss count all labelled
    moments of all clips alike, so long clips weigh more; the edit score is the mean over clips; segment F1 adds up
    its counts over all clips (Farha and Gall 2019). Intervals as in `evaluate_predictions`: over groups of clips.

    Args:
        paths: N files, each once.
        labels: per clip (T,) integers in [-1, K), -1 where there is no label.
        probabilities: per clip (T, K) in [0, 1], rows summing to 1.
        classes, groups, expected, failed, resamples, seed: as of `evaluate_predictions`.

    Returns:
        `task`; `frame_accuracy`, `macro_f1`, `edit`, `f1_10`, `f1_25` and `f1_50` in 0..1, each with `_low` and
        `_high`; `n`, `expected`, `coverage`, `failed`, in clips; `moments` and `unlabelled`, how many count and how
        many do not; `segments` `{true, predicted}`, their numbers; `majority`, `per_class` and `confusion` over
        moments; `log_loss` in nats per moment; `groups` and `note`.

    Raises:
        ValueError: a path twice, shapes that do not fit, or files that are neither scored nor listed as failed.
        DataError: nothing was scored, or no moment has a label.
    """
    check_files(paths, expected, failed)
    found = _sequences(paths, labels, probabilities, len(classes), groups)
    k, grouped = len(classes), group_clips(groups)
    lengths = [len(true) for true in found.true]
    true, predicted = np.concatenate(found.true), np.concatenate(found.predicted)
    own = np.concatenate(found.own)
    counted = true >= 0
    if not counted.any():
        raise DataError(f"none of the {len(true)} moments of {len(paths)} clips has a label to compare with")
    group_of = np.repeat(grouped.of, lengths)[counted]
    true, predicted, own = true[counted], predicted[counted], own[counted]
    per_group = statistics(true, predicted, true == predicted, group_of, grouped.count, k)
    segments = np.array([segment_counts(t, p) for t, p in zip(found.true, found.predicted, strict=True)])
    columns = np.concatenate([per_group.stacked(), grouped.sums(segments)], axis=1)
    total = columns.sum(axis=0)
    point = _scores(total)
    trials = np.concatenate([np.full(len(SCORES), float(grouped.count)), np.tile(speaking(per_group), 3)])
    low, high = intervals(point, resampled(columns, _scores, resamples, seed), trials, shares=True)
    support = per_group.support.sum(axis=0)
    commonest, rest = int(support.argmax()), len(SCORES)
    scores: dict[str, Any] = {}
    for index, name in enumerate(SCORES):
        scores |= entry(name, point[index], low[index], high[index])
    hits, extra, missed = (int(count) for count in total[-3:])
    return {
        "task": "frame_label",
        **scores,
        "n": len(paths),
        "expected": expected,
        "coverage": len(paths) / expected,
        "failed": [dict(one) for one in failed],
        "moments": len(true),
        "unlabelled": int((~counted).sum()),
        "segments": {"true": hits + missed, "predicted": hits + extra},
        "majority": {"class": classes[commonest], "rate": float(support[commonest] / len(true))},
        "per_class": per_class_rows(classes, support, point[rest:], low[rest:], high[rest:]),
        "confusion": np.bincount(true * k + predicted, minlength=k * k).reshape(k, k).tolist(),
        "log_loss": float(-np.log(np.clip(own, np.finfo(np.float64).tiny, 1)).mean()),
        "groups": grouped.sources,
        "note": grouped.note,
    }


def segment_counts(true: Ints, predicted: Ints) -> list[float]:
    """What a clip adds to the sums: edit score, whether it has one, then hits, extra and missed segments for each of
    `OVERLAPS`. A clip without a labelled moment adds nothing.
    """
    counted = true >= 0
    if not counted.any():
        return [0.0] * SEGMENT_COLUMNS
    true_ones, predicted_ones = find_segments(true, counted), find_segments(predicted, counted)
    counts = [edit_score(true_ones.labels, predicted_ones.labels), 1.0]
    for overlap in OVERLAPS:
        counts.extend(count_matches(true_ones, predicted_ones, overlap))
    return counts


def _scores(sums: NDArray[Any]) -> Floats:
    """Sums (..., 3K + 1 + SEGMENT_COLUMNS) to `SCORES`, then precision, recall and F1 of each class; NaN: undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no labelled moment: NaN
        moments = class_scores(Statistics.unstacked(sums[..., :-SEGMENT_COLUMNS]))
        edit, clips, *counts = np.moveaxis(sums[..., -SEGMENT_COLUMNS:], -1, 0)
        found = [edit / clips]
        for hits, extra, missed in zip(counts[0::3], counts[1::3], counts[2::3], strict=True):
            found.append(2 * hits / (2 * hits + extra + missed))
    return np.concatenate([moments[..., [0, 2]], np.stack(found, axis=-1), moments[..., 3:]], axis=-1)


def _sequences(
    paths: Sequence[str], labels: Sequence[Any], probabilities: Sequence[Any], k: int, groups: Sequence[str]
) -> Sequences:
    """What `evaluate_frames` is handed, checked."""
    if not len(paths) == len(labels) == len(probabilities) == len(groups):
        raise ValueError(
            f"{len(paths)} paths, but {len(labels)} labels, {len(probabilities)} predictions, {len(groups)} groups"
        )
    found = Sequences([], [], [])
    for path, true, share in zip(paths, labels, probabilities, strict=True):
        true, share = np.asarray(true), np.asarray(share, dtype=np.float64)
        if true.ndim != 1 or not len(true) or share.shape != (len(true), k):
            raise ValueError(f"{path}: labels {true.shape} and probabilities {share.shape} of {k} classes do not fit")
        if not np.issubdtype(true.dtype, np.integer) or true.min() < -1 or true.max() >= k:
            raise ValueError(f"{path}: labels must be integers from -1 to {k - 1}")
        if not np.isfinite(share).all() or share.min() < 0 or np.abs(share.sum(axis=1) - 1).max() > 1e-2:
            raise ValueError(f"{path}: probabilities must be finite, not negative and sum to 1 at each moment")
        found.true.append(true.astype(np.int64))
        found.predicted.append(share.argmax(axis=1))
        found.own.append(share[np.arange(len(true)), np.maximum(true, 0)])
    return found
