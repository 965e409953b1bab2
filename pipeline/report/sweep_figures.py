"""Figures of a sweep: its trials one after the other, and which options mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.drawing import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PALE_BLUE,
    PURPLE,
    clean,
    new_figure,
    save_figure,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def history_figure(
    trials: Sequence[tuple[int, str, float | None]], metric: str, minimise: bool, path: str | Path
) -> None:
    """The metric of each trial in their order, and the best so far.

    Args:
        trials: number, state (finished, pruned, failed) and value of each; a pruned one has its last value. One
            finished at least.
        metric: its name.
        minimise: less is better.
        path: PNG file to write.
    """
    finished = [(number, value) for number, state, value in trials if state == "finished" and value is not None]
    pruned = [(number, value) for number, state, value in trials if state == "pruned" and value is not None]
    failed = [number for number, state, _ in trials if state == "failed"]
    if not finished:
        raise ValueError("no finished trial to draw")
    figure = new_figure(7.2, 3.9)
    axes = figure.add_subplot()
    clean(axes, metric)
    numbers, values = (np.array(column) for column in zip(*finished, strict=True))
    so_far = (np.minimum if minimise else np.maximum).accumulate(values)
    last = max(number for number, _, _ in trials)
    steps = np.append(so_far, so_far[-1])
    axes.step(np.append(numbers, last), steps, where="post", color=PURPLE, linewidth=1.6, label="best so far", zorder=2)
    axes.plot(numbers, values, "o", color=BLUE, markersize=5.5, label="finished", zorder=3)
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "o", mfc="white", mec=MUTED, markersize=5, label="pruned", zorder=3)
    if failed:
        floor = axes.get_xaxis_transform()
        axes.plot(
            failed, [0.03] * len(failed), "x", color=ORANGE, markersize=6, label="failed", transform=floor, zorder=3
        )
    best = int(np.argmin(values) if minimise else np.argmax(values))
    _mark(axes, int(numbers[best]), float(values[best]), last, minimise)
    axes.set_xlabel("trial", size=9, color=MUTED)
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    axes.set_xlim(-0.6, max(last, 1) + 0.6)
    axes.margins(y=0.12)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)


def importance_figure(shares: Mapping[str, float], metric: str, finished: int, path: str | Path) -> None:
    """How much of the metric's variance comes from each option, the largest on top.

    Args:
        shares: of the options, 0..1.
        metric: its name.
        finished: trials that this was computed from.
        path: PNG file to write.
    """
    if not shares:
        raise ValueError("no options to draw")
    rows = sorted(shares.items(), key=lambda item: item[1])
    figure = new_figure(7.2, 0.36 * len(rows) + 1.1)
    axes = figure.add_subplot()
    positions = [float(position) for position in range(len(rows))]
    values = [share for _, share in rows]
    axes.barh(positions, values, height=0.62, color=PALE_BLUE, linewidth=0)
    axes.plot(values, positions, "o", color=BLUE, markersize=4.5, clip_on=False, zorder=3)
    for position, value in zip(positions, values, strict=True):
        axes.text(1.03, position, f"{value:.2f}", va="center", size=9, color=MUTED)
    clean(axes, f"share in the variance of {metric}, {finished} finished trials")
    axes.set_yticks(positions, [shortened(name, 32) for name, _ in rows], size=9, color=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="y", visible=False)
    save_figure(figure, path)


def _mark(axes: Axes, number: int, value: float, last: int, minimise: bool) -> None:
    """The best trial's number and value beside it, where the other points are not."""
    left = number > last / 2
    axes.annotate(
        f"trial {number}: {value:.4g}",
        (number, value),
        xytext=(-6 if left else 6, -9 if minimise else 9),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top" if minimise else "bottom",
        size=9,
        color=INK,
    )
