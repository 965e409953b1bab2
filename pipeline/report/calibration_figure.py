"""Reliability diagrams before and after temperature scaling, and the risk-coverage curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.bootstrap import format_interval
from pipeline.report.drawing import BLUE, GRID, INK, MUTED, ORANGE, PALE_BLUE, PURPLE, clean, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability_figure(calibration: dict[str, Any], path: str | Path) -> None:
    """How often answers of each confidence are right: a bar on the diagonal is honest, one below it is too sure. Under
    each diagram, how many answers have that confidence.

    Args:
        calibration: of `examine`: `before` (may be None), `after`, `temperature`.
        path: PNG file to write.
    """
    shown = [(f"temperature {calibration['temperature']:.2f}", calibration["after"])]
    if calibration["before"] is not None and calibration["temperature"] != 1:
        shown = [("before scaling", calibration["before"]), (f"after, {shown[0][0]}", calibration["after"])]
    figure = new_figure(3.9 * len(shown), 4.6)
    upper, lower = figure.subplots(2, len(shown), sharex=True, height_ratios=[3, 1], squeeze=False)
    for column, (title, found) in enumerate(shown):
        _diagram(upper[column], found, title)
        _counts(lower[column], found)
    figure.supxlabel("confidence: probability of the answer", size=9, color=MUTED)
    save_figure(figure, path)


def _diagram(axes: Axes, found: dict[str, Any], title: str) -> None:
    bins = found["bins"]
    left = np.array([one["from"] for one in bins])
    width = np.array([one["to"] - one["from"] for one in bins])
    accuracy = np.array([one["accuracy"] for one in bins])
    confidence = np.array([one["confidence"] for one in bins])
    axes.bar(left + width / 2, accuracy, width * 0.92, color=PALE_BLUE, linewidth=0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.vlines(confidence, np.minimum(accuracy, confidence), np.maximum(accuracy, confidence), color=ORANGE, lw=1.6)
    axes.plot(confidence, accuracy, "o", color=BLUE, markersize=4, zorder=3)
    error = format_interval(found["ece"], found["ece_low"], found["ece_high"])
    clean(axes, f"{title}\nECE {error}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_ylabel("share that is right", size=9, color=MUTED)


def _counts(axes: Axes, found: dict[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    bins = found["bins"]
    middle = [(one["from"] + one["to"]) / 2 for one in bins]
    width = bins[0]["to"] - bins[0]["from"]
    axes.bar(middle, [one["answers"] for one in bins], width * 0.92, color=GRID, linewidth=0)
    clean(axes, "")
    axes.set_ylabel("answers", size=9, color=MUTED)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))


def risk_figure(selection: dict[str, Any], path: str | Path) -> None:
    """Which share of the answers that are given is wrong, when only the surest are given; the chosen threshold on it.

    Args:
        selection: of `examine`.
        path: PNG file to write.
    """
    curve = selection["curve"]
    figure = new_figure(5.2, 3.8)
    axes = figure.add_subplot()
    coverage = [row["coverage"] for row in curve]
    axes.plot(coverage, [row["risk"] for row in curve], color=BLUE, linewidth=1.8, drawstyle="steps-post")
    wished = 1 - selection["precision"]
    top = max(0.1, 1.15 * max(row["risk"] for row in curve), 1.3 * wished)
    axes.axhline(wished, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    label: dict[str, Any] = {"bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}, "zorder": 4}
    axes.text(1.0, wished - top * 0.015, f"wished: {wished:.3g}", size=8, color=MUTED, va="top", ha="right", **label)
    chosen = selection["selected"]
    if chosen is not None and chosen["precision"] is not None:
        at = (chosen["coverage"], 1 - chosen["precision"])
        axes.plot(*at, "o", color=PURPLE, markersize=7, zorder=3)
        right = at[0] > 0.6
        axes.annotate(
            f"threshold {selection['threshold']:.2f}", at, xytext=(-9 if right else 9, 10), textcoords="offset points",
            ha="right" if right else "left", size=9, color=INK, **label,
        )  # fmt: skip
    clean(axes, "risk: share of the given answers that is wrong")
    axes.set(xlim=(0, 1.01), ylim=(0, top))
    axes.set_xlabel("coverage: share of the clips that is answered, the surest first", size=9, color=MUTED)
    save_figure(figure, path)
