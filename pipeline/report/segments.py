"""Labels over time as segments: which there are, the edit score, segment F1, and boundaries in seconds.

A segment is a longest run of moments with one label. A moment without a true label says nothing about a prediction:
it is left out of both sequences, and no segment, true or predicted, reaches over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.bootstrap import Floats, Ints

OVERLAPS = (0.10, 0.25, 0.50)
"""Thresholds of intersection over union at which a predicted segment counts as found (Lea et al. 2017)."""


@dataclass(frozen=True)
class Segments:
    """Runs of one label, in the order of time.

    Attributes:
        labels, starts, ends: int64 (S,); moments `starts` to `ends` - 1 by number.
    """

    labels: Ints
    starts: Ints
    ends: Ints

    def __len__(self) -> int:
        return len(self.labels)


def find_segments(labels: Ints, counted: NDArray[np.bool_] | None = None) -> Segments:
    """The segments of labels (T,); moments that are not `counted` (T,) belong to none and end the one before them."""
    steps = len(labels)
    counted = np.ones(steps, dtype=bool) if counted is None else counted
    new = np.ones(steps, dtype=bool)
    new[1:] = (labels[1:] != labels[:-1]) | (counted[1:] != counted[:-1])
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], steps)[: len(starts)]
    kept = counted[starts]
    return Segments(labels[starts][kept], starts[kept], ends[kept])


def edit_score(true: Sequence[int] | Ints, predicted: Sequence[int] | Ints) -> float:
    """Whether the right things happen in the right order, whenever they do: 0..1 (Lea et al. 2016, who give percent).

    1 - d / n with d the Levenshtein distance between both sequences of segment labels and n the longer one's length.
    Over-segmentation costs; a boundary that is a little off does not.

    Args:
        true, predicted: the labels of the segments in their order; 1 where both are empty.
    """
    longest = max(len(true), len(predicted))
    return 1 - levenshtein(np.asarray(true), np.asarray(predicted)) / longest if longest else 1.0


def levenshtein(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein 1966)."""
    columns = np.arange(len(other) + 1)
    row = columns.copy()  # row[j]: distance between what was read of `one` and the first j of `other`
    for count, symbol in enumerate(one, start=1):
        kept_or_replaced = row[:-1] + (other != symbol)
        deleted = row[1:] + 1
        row = np.concatenate([[count], np.minimum(kept_or_replaced, deleted)])
        # an insertion adds 1 per column to the left: the running minimum of row[j] - j, put back
        row = np.minimum.accumulate(row - columns) + columns
    return int(row[-1])


def count_matches(true: Segments, predicted: Segments, overlap: float) -> tuple[int, int, int]:
    """True positives, false positives and false negatives among predicted segments (Lea et al. 2017).

    Each predicted segment in its order is compared with the true one of its label that it overlaps most, measured by
    intersection over union of their moments. It is a true positive where that reaches `overlap` and no earlier
    prediction has found the same segment, else a false positive. True segments that nothing found are the false
    negatives.
    """
    found = np.zeros(len(true), dtype=bool)
    for label, start, end in zip(predicted.labels, predicted.starts, predicted.ends, strict=True):
        if not len(true):
            break
        shared = np.minimum(end, true.ends) - np.maximum(start, true.starts)
        union = (end - start) + (true.ends - true.starts) - shared
        share = np.where(true.labels == label, np.maximum(shared, 0) / union, 0.0)
        best = int(share.argmax())
        if share[best] >= overlap:
            found[best] = True
    hits = int(found.sum())
    return hits, len(predicted) - hits, len(true) - hits


def timed_segments(labels: Ints, times: Floats, duration: float) -> list[tuple[int, float, float, slice]]:
    """Segments in seconds: label, start, end, and the moments they hold.

    A boundary lies half way between the last moment of one segment and the first of the next, which halves the
    largest error; the first segment starts at 0, the last ends with the clip. They cover the clip without a gap.

    Args:
        labels: int64 (T,), T >= 1.
        times: float64 (T,) seconds after the clip's start, increasing.
        duration: seconds of the clip.
    """
    found = find_segments(labels)
    cuts = (times[found.starts[1:] - 1] + times[found.starts[1:]]) / 2
    edges = np.concatenate([[0.0], cuts, [max(duration, float(times[-1]))]])
    return [
        (int(label), float(edges[i]), float(edges[i + 1]), slice(int(found.starts[i]), int(found.ends[i])))
        for i, label in enumerate(found.labels)
    ]
