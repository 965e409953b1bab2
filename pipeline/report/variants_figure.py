"""Scores of the same clips seen in several ways, one under the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.drawing import BLUE, INK, MUTED, ORANGE, PURPLE, clean, new_figure, save_figure
from pipeline.report.variants import cost_text


def variants_figure(
    rows: Sequence[dict[str, Any]], title: str, path: str | Path, share: bool, reference: float | None = None
) -> None:
    """A point with its 95% interval per row, the first row's score as a line through all; rows that surely lose are
    orange, and what each loses stands at the right.

    Args:
        rows: of `variant_row`; the first one is the clips as they are.
        title: of the figure.
        path: PNG file to write.
        share: the score is a share of right answers; else an error.
        reference: what needs no model; a dashed line.
    """
    count = len(rows)
    figure = new_figure(7.4, 0.34 * count + 1.15)
    axes = figure.add_subplot()
    places = np.arange(count)[::-1]
    axes.axvline(rows[0]["score"], color=BLUE, linewidth=1, alpha=0.35)
    if reference is not None:
        axes.axvline(reference, color=PURPLE, linewidth=1.2, linestyle=(0, (4, 3)))
        known = "the commonest class" if share else "always the mean"
        axes.annotate(
            known, (reference, -0.62), xytext=(4, 0), textcoords="offset points", size=8, color=MUTED, va="center"
        )
    for place, row in zip(places, rows, strict=True):
        colour = ORANGE if (row["cost_low"] or 0) > 0 else BLUE
        if row["score_low"] is not None:
            axes.hlines(place, row["score_low"], row["score_high"], color=colour, linewidth=1.8)
        axes.plot(row["score"], place, "o", color=colour, markersize=5.5, clip_on=False, zorder=3)
        loss = "" if row is rows[0] else cost_text(row)
        axes.text(1.02, place, loss, transform=axes.get_yaxis_transform(), va="center",
                  size=9, color=INK)  # fmt: skip
    clean(axes, title)
    axes.text(1.02, count - 0.3, "loses", transform=axes.get_yaxis_transform(), va="bottom", size=9, color=MUTED)
    axes.set_yticks(places, [row["name"] for row in rows], size=9, color=INK)
    axes.set_ylim(-0.9, count - 0.4)
    if share:
        axes.set_xlim(0, 1.005)
    axes.set_xlabel("share of right answers, 95% interval" if share else "mean absolute error, 95% interval", size=9,
                    color=MUTED)  # fmt: skip
    axes.grid(axis="y", visible=False)
    save_figure(figure, path)
