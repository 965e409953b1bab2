"""Figures of classes and of a training run, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.drawing import (
    BLUE,
    EMPTY,
    GREEN,
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
from pipeline.report.tasks import JUDGED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COUNTS_UP_TO = 40
"""Most classes for which the cells of a confusion matrix are large enough to hold a number."""


def confusion_figure(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], path: str | Path, unit: str = "clips"
) -> None:
    """Confusion matrix: counts as text, the share of each true class as colour, so rare classes show too.

    Args:
        confusion: K x K counts, true classes as rows, 2 <= K <= about 101.
        classes: K names.
        path: PNG file to write.
        unit: what is counted.
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(confusion)
    k = len(classes)
    if counts.shape != (k, k):
        raise ValueError(f"{k} classes, but a confusion matrix of shape {counts.shape}")
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shortened(name) for name in classes]
    cell = float(np.clip(9.0 / k, 0.155, 0.62))
    text = float(np.clip(cell * 72 * 0.30, 3.0, 10))
    label = float(np.clip(cell * 72 * 0.68, 5.0, 10))
    margin = max(len(name) for name in names) * label * 0.6 / 72 + 0.5
    side = max(cell * k, 1.6)
    figure = new_figure(side + margin + 1.1, side + margin + 0.7)
    axes = figure.add_subplot()
    # Without numbers in the cells a rare confusion must still be seen: the root lifts the small shares.
    norm = PowerNorm(1.0 if k <= COUNTS_UP_TO else 0.5, vmin=0, vmax=1)
    image = axes.imshow(np.ma.masked_equal(share, 0), cmap="Blues", norm=norm)
    axes.set_facecolor(EMPTY)
    _name_classes(axes, names, label)
    if k <= COUNTS_UP_TO:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[row, column] > 0.55 else INK
            number = str(counts[row, column])
            axes.text(column, row, number, ha="center", va="center", size=text, color=colour)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.0 + 0.15 / side, 0.0, 0.16 / side, 1.0)))
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("share of the true class", size=9, color=MUTED)
    bar.ax.tick_params(labelsize=8, colors=MUTED, length=0)
    right = int(np.trace(counts))
    title = f"{right} of {int(counts.sum())} {unit} right"
    axes.set_title(title, size=12, color=INK, loc="left", pad=10)
    save_figure(figure, path)


def curves_figure(history: Sequence[dict[str, Any]], path: str | Path, task: str = "label") -> None:
    """Training curves: losses, validation score and learning rate over the epochs, the best epoch marked.

    Args:
        history: one dictionary per epoch with `epoch`, `train_loss`, `val_loss`, the task's validation score and
            `learning_rate`; a missing or non-finite value leaves a gap. The best epoch is the one with the
            lowest `val_loss`.
        path: PNG file to write.
        task: which score that is, see `JUDGED`.
    """
    if not history:
        raise ValueError("no epochs to draw")
    judged = JUDGED[task]
    epochs = [int(row["epoch"]) for row in history]
    series = {
        key: np.array([_number(row.get(key)) for row in history])
        for key in ("train_loss", "val_loss", judged.validation, "learning_rate")
    }
    figure = new_figure(7.2, 7.2)
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])
    _line(upper, epochs, series["train_loss"], MUTED, "training")
    _line(upper, epochs, series["val_loss"], BLUE, "validation")
    _line(middle, epochs, series[judged.validation], ORANGE, "validation")
    _line(lower, epochs, series["learning_rate"], GREEN, "learning rate")
    for axes, title in ((upper, "loss"), (middle, judged.title), (lower, "learning rate")):
        clean(axes, title)
    upper.set_ylim(bottom=0)
    middle.set_ylim(0, 1.03 if judged.share else None)
    lower.set_ylim(0, 1.1 * float(np.nanmax([*series["learning_rate"], 1e-12])))
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    lower.yaxis.get_offset_text().set(size=8, color=MUTED)
    lower.set_xlabel("epoch", size=9, color=MUTED)
    lower.xaxis.get_major_locator().set_params(integer=True)
    _mark_best((upper, middle, lower), epochs, series["val_loss"], series[judged.validation])
    upper.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)


def per_class_figure(per_class: Sequence[dict[str, Any]], path: str | Path, unit: str = "clips") -> None:
    """F1 of each class with its 95% interval, best on top, the number of clips (or moments) at the right.

    Args:
        per_class: rows of `evaluate_predictions`; a class without F1 (it does not occur) comes last, as "no
            clips".
        path: PNG file to write.
        unit: what is counted.
    """
    if not per_class:
        raise ValueError("no classes to draw")
    rows = sorted(per_class, key=lambda row: (row["f1"] is not None, row["f1"] or 0.0))
    k = len(rows)
    step = float(np.clip(14.0 / k, 0.16, 0.34))
    size = float(np.clip(step * 72 * 0.62, 5.5, 10))
    figure = new_figure(7.2, step * k + 1.1)
    axes = figure.add_subplot()
    positions = np.arange(k, dtype=np.float64)
    values = np.array([_number(row["f1"]) for row in rows])
    axes.barh(positions, np.nan_to_num(values), height=0.62, color=PALE_BLUE, linewidth=0)
    axes.plot(values, positions, "o", color=BLUE, markersize=max(2.5, size * 0.5), clip_on=False, zorder=3)
    known = [index for index, row in enumerate(rows) if row["f1_low"] is not None]
    low = np.array([rows[index]["f1_low"] for index in known])
    high = np.array([rows[index]["f1_high"] for index in known])
    axes.hlines(positions[known], low, high, color=BLUE, linewidth=max(1.0, size * 0.16), zorder=2)
    for position, row in zip(positions, rows, strict=True):
        counted = str(row["support"]) if row["f1"] is not None else f"no {unit}"
        axes.text(1.03, position, counted, va="center", size=size, color=MUTED)
    axes.text(1.03, k - 0.1, unit, va="bottom", size=size, color=MUTED)
    clean(axes, "F1 per class, 95% interval")
    axes.set_yticks(positions, [shortened(row["class"]) for row in rows], size=size, color=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.7, k - 0.3)
    axes.grid(axis="y", visible=False)
    save_figure(figure, path)


def _line(axes: Axes, epochs: list[int], values: np.ndarray, colour: str, name: str) -> None:
    """One curve; a single epoch is a point."""
    marker = "o" if np.isfinite(values).sum() < 12 else ""
    axes.plot(epochs, values, color=colour, linewidth=1.8, marker=marker, markersize=4, label=name)


def _mark_best(panels: Sequence[Axes], epochs: list[int], losses: np.ndarray, scores: np.ndarray) -> None:
    """A vertical line at the lowest validation loss, the score there beside it."""
    if not np.isfinite(losses).any():
        return
    best = int(np.nanargmin(losses))
    for axes in panels:
        axes.axvline(epochs[best], color=PURPLE, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    text = f"best epoch {epochs[best]}" + (f": {scores[best]:.3g}" if np.isfinite(scores[best]) else "")
    left = best > len(epochs) / 2
    panels[1].annotate(
        text,
        (epochs[best], 0.04),
        xytext=(-6 if left else 6, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        size=9,
        color=INK,
    )


def _name_classes(axes: Axes, names: list[str], size: float) -> None:
    """Class names on both sides of a confusion matrix and white lines between its cells."""
    k = len(names)
    axes.set_xticks(range(k), names, rotation=90 if k > 12 else 45, ha="center" if k > 12 else "right")
    if k <= 12:
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode("anchor")
    axes.set_yticks(range(k), names)
    axes.tick_params(labelsize=size, length=0, labelcolor=INK)
    axes.set_xlabel("predicted", size=10, color=MUTED)
    axes.set_ylabel("true", size=10, color=MUTED)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(k - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(k - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5 if k <= COUNTS_UP_TO else 0.4)
    axes.tick_params(which="minor", length=0)


def _number(value: Any) -> float:
    """A value that may be missing, as a float; NaN is drawn as a gap."""
    return float("nan") if value is None or not np.isfinite(value) else float(value)
