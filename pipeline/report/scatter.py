"""Numbers of clips: each predicted one over the true one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.report.drawing import BLUE, INK, MUTED, clean, new_figure, save_figure
from pipeline.report.tracks import Track


def scatter_figure(tracks: Sequence[Track], r2: float | None, path: str | Path) -> None:
    """A point per clip, and the line on which both agree.

    Args:
        tracks: of a task with a number per clip.
        r2: for the title; None where it is not defined.
        path: PNG file to write.
    """
    true = np.array([float(track.true[0]) for track in tracks])
    predicted = np.array([float(track.predicted[0]) for track in tracks])
    known = ~np.isnan(true)
    true, predicted = true[known], predicted[known]
    ends = np.array([min(true.min(), predicted.min()), max(true.max(), predicted.max())])
    room = 0.04 * (ends[1] - ends[0]) or 0.5
    limits = (ends[0] - room, ends[1] + room)
    figure = new_figure(5.2, 5.2)
    axes = figure.add_subplot()
    axes.plot(limits, limits, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label="exact")
    axes.scatter(true, predicted, s=24, color=BLUE, alpha=0.6 if len(true) > 40 else 0.85, linewidths=0, zorder=2)
    clean(axes, f"{len(true)} clips" + ("" if r2 is None else f", R² {r2:.3f}"))
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    axes.set_aspect("equal")
    axes.set_xlabel("true", size=10, color=MUTED)
    axes.set_ylabel("predicted", size=10, color=MUTED)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    save_figure(figure, path)
