"""The figure of the learning-rate range test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.report.drawing import BLUE, INK, MUTED, PURPLE, clean, new_figure, save_figure


def rate_figure(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float | None,
    path: str | Path,
) -> None:
    """Loss over the learning rate, and a line at the suggested one.

    Args:
        rates: rising, above 0.
        losses: one per rate.
        smoothed: the same without their noise.
        suggestion: where the line is; None: no line.
        path: PNG file to write.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = new_figure(7.2, 4.0)
    axes = figure.add_subplot()
    axes.plot(rates, losses, ".", color=MUTED, markersize=3.5, alpha=0.7, label="each update")
    axes.plot(rates, smoothed, color=BLUE, linewidth=1.8, label="smoothed")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"1e{round(np.log10(rate))}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    clean(axes, "training loss")
    axes.set_xlabel("learning rate", size=9, color=MUTED)
    low, high = min(smoothed), max(smoothed[0], float(np.median(losses)))
    axes.set_ylim(max(0.0, low - 0.15 * (high - low)), high + 0.6 * (high - low) + 1e-6)
    if suggestion is not None:
        axes.axvline(suggestion, color=PURPLE, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"suggested: {suggestion:.2g}",
            (suggestion, 0.05),
            xycoords=("data", "axes fraction"),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            size=9,
            color=INK,
        )
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes.tick_params(which="minor", length=0)
    save_figure(figure, path)
