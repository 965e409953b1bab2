"""How soon the answers to a stream are right: accuracy after a change, and the moment from which they stay right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, clean, new_figure, save_figure
from pipeline.report.tables import text_table

FEWEST = 10
"""Passages that a point of the curve must have: what only the longest have says nothing about the others."""

STYLES = ((BLUE, "-"), (ORANGE, "-"), (GREEN, "-"), (PURPLE, "-"), ("#E69F00", "-"), (MUTED, (0, (4, 3))))

Passage = tuple[int, int, int]
"""A label, its first moment, and the moment after its last one."""


def passages(truth: NDArray[np.int64], begins: NDArray[np.bool_]) -> list[Passage]:
    """The passages of a stream.

    Args:
        truth: (T,) true labels; negative where there is none, which is no passage.
        begins: (T,) where something new begins although the label may be the same.
    """
    edges = begins.copy()
    edges[:1] = True
    edges[1:] |= truth[1:] != truth[:-1]
    starts = np.flatnonzero(edges)
    ends = np.append(starts[1:], len(truth))
    return [(int(truth[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True) if truth[a] >= 0]


def delays(answers: Sequence[NDArray[np.int64]], found: Sequence[Sequence[Passage]]) -> dict[str, Any]:
    """The numbers of one way to watch.

    Args:
        answers: per stream, (T,) labels.
        found: its passages.

    Returns:
        accuracy: share of the moments answered rightly; curve: the same for the first, second, ... moment of a passage,
        as far as `FEWEST` passages last; median: moments until an answer that stays right to the passage's end, in the
        middle of all passages (None where half of them never have one); never: the share of those; passages: counted.
    """
    right = [
        labels[first:end] == label
        for labels, parts in zip(answers, found, strict=True)
        for label, first, end in parts
    ]  # fmt: skip
    longest = max(len(part) for part in right)
    curve = []
    for place in range(longest):
        there = [part[place] for part in right if len(part) > place]
        if len(there) < min(FEWEST, len(right)):
            break
        curve.append(float(np.mean(there)))
    waits = sorted(_wait(part) for part in right)
    middle = waits[(len(waits) - 1) // 2]
    return {
        "accuracy": float(np.mean(np.concatenate(right))),
        "curve": curve,
        "median": None if np.isinf(middle) else int(middle),
        "never": float(np.mean(np.isinf(waits))),
        "passages": len(right),
    }


def _wait(right: NDArray[np.bool_]) -> float:
    """Moments before the answer is right for good; infinite where it is wrong at the end."""
    if not right[-1]:
        return np.inf
    wrong = np.flatnonzero(~right)
    return float(wrong[-1] + 1) if len(wrong) else 0.0


def delay_table(scores: Mapping[str, Mapping[str, Any]], rate: float) -> str:
    """For a person; `scores` by the name of the way to watch, `rate` in moments per second.

    accuracy is that of all moments, `at the end` that of the last moment of each passage.
    """
    rows = []
    for name, score in scores.items():
        middle = score["median"]
        wait = "-" if middle is None else f"{middle} ({middle / rate:.2f} s)"
        rows.append([name, f"{score['accuracy']:.3f}", f"{1 - score['never']:.3f}", wait])
    return text_table(["state begins anew", "accuracy", "at the end", "moments until right"], rows)


def delay_figure(scores: Mapping[str, Mapping[str, Any]], rate: float, path: str | Path) -> None:
    """Accuracy over the time since something new began, a line per way to watch.

    Args:
        scores: of `delays`, by name.
        rate: moments per second.
        path: PNG file to write.
    """
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    for (name, score), (colour, line) in zip(scores.items(), STYLES, strict=False):
        seconds = np.arange(len(score["curve"])) / rate
        axes.plot(seconds, score["curve"], color=colour, linestyle=line, linewidth=1.8, label=name)
    clean(axes, "share of right answers")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("seconds since the clip on screen began", size=9, color=MUTED)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=3, loc="lower left", bbox_to_anchor=(0, -0.36))
    save_figure(figure, path)
