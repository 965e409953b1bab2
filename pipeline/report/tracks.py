"""What was true and what was predicted, moment by moment, for several clips: ribbons of labels, curves of numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.drawing import (
    BLUE,
    EMPTY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    clean,
    new_figure,
    save_figure,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 8
"""Clips that a page shows."""
MISS = "#1A1A1A"


@dataclass(frozen=True)
class Track:
    """One clip over time.

    Attributes:
        path: its file, or its name where it is a segment of one.
        times: float64 (T,) seconds, the moments.
        true: (T,) class numbers, -1 where there is no label; or numbers, NaN where nothing is known. A clip with one
            number for all of it has T = 1.
        predicted: (T,) the same.
        duration: seconds of the clip.
    """

    path: str
    times: NDArray[np.float64]
    true: NDArray[Any]
    predicted: NDArray[Any]
    duration: float

    @property
    def loss(self) -> float:
        """Share of the labelled moments that are wrong, or the mean absolute error; NaN where nothing is known."""
        if np.issubdtype(self.true.dtype, np.integer):
            wrong = (self.true != self.predicted)[self.true >= 0].astype(np.float64)
        else:
            wrong = np.abs(self.predicted - self.true)[~np.isnan(self.true)]
        return float(wrong.mean()) if len(wrong) else float("nan")


def spread(tracks: Sequence[Track], count: int = SHOWN) -> list[Track]:
    """Clips from the worst to the best, evenly through the ranking: neither the luckiest nor the unluckiest alone."""
    ranked = sorted((track for track in tracks if not np.isnan(track.loss)), key=lambda track: -track.loss)
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[place] for place in places]


def ribbons_figure(tracks: Sequence[Track], classes: Sequence[str], path: str | Path) -> None:
    """Labels over time as strips, the true one above the predicted one; where they differ, a dark line under both.

    Args:
        tracks: of a task with a label for each moment; some of them are drawn, see `spread`.
        classes: K names.
        path: PNG file to write.
    """
    from matplotlib.patches import Patch

    shown = spread(tracks)
    colours = class_colours(len(classes))
    rows = -(-len(classes) // 6)
    figure = new_figure(7.6, 0.78 * len(shown) + 0.9 + 0.26 * rows)
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, track in zip(panels, shown, strict=True):
        _ribbon(axes, track, colours)
    panels[-1].set_xlabel("seconds", size=9, color=MUTED)
    used = sorted({int(x) for track in shown for part in (track.true, track.predicted) for x in part if x >= 0})
    handles = [Patch(color=colours[number], label=shortened(classes[number])) for number in used]
    if any((track.true < 0).any() for track in shown):
        handles.append(Patch(facecolor=EMPTY, edgecolor=GRID, label="no label"))
    handles.append(Patch(color=MISS, label="wrong"))
    figure.legend(handles=handles, loc="outside upper left", ncols=6, frameon=False, fontsize=9, labelcolor=INK)
    figure.supylabel(_caption(shown, tracks), size=8, color=MUTED)
    save_figure(figure, path)


def curves_over_time_figure(tracks: Sequence[Track], path: str | Path) -> None:
    """Numbers over time, true and predicted, for several clips.

    Args:
        tracks: of a task with a number for each moment; some of them are drawn, see `spread`.
        path: PNG file to write.
    """
    shown = spread(tracks)
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    figure = new_figure(7.6, 1.75 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, track in zip(panels, shown, strict=False):
        few = "o" if len(track.times) < 40 else ""
        axes.plot(track.times, track.true, color=MUTED, linewidth=2.2, label="true", marker=few, markersize=3.5)
        axes.plot(track.times, track.predicted, color=BLUE, linewidth=1.6, label="predicted", marker=few, markersize=3)
        clean(axes, "")
        axes.set_title(f"{_name(track)}, MAE {track.loss:.3g}", size=8, color=INK, loc="left")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("seconds", size=9, color=MUTED)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    figure.supylabel(_caption(shown, tracks), size=8, color=MUTED)
    save_figure(figure, path)


def class_colours(count: int) -> list[Any]:
    """A colour for each class: eight that colour-blind readers can tell apart (Okabe and Ito 2008), then others."""
    first = [BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#8C6D4F"]
    if count <= len(first):
        return first[:count]
    from matplotlib import colormaps

    return [colormaps["turbo"](x) for x in np.linspace(0.04, 0.96, count)]


def _ribbon(axes: Axes, track: Track, colours: Sequence[Any]) -> None:
    """One clip: two strips and the line of misses."""
    cuts = (track.times[1:] + track.times[:-1]) / 2
    edges = np.concatenate([[0.0], cuts, [max(track.duration, float(track.times[-1]))]])
    widths = np.diff(edges)
    wrong = (track.true != track.predicted) & (track.true >= 0)
    for height, labels in ((1.15, track.true), (0.1, track.predicted)):
        drawn = [EMPTY if number < 0 else colours[number] for number in labels]
        axes.barh([height] * len(widths), widths, left=edges[:-1], height=1.0, color=drawn, linewidth=0, align="edge")
    axes.barh([-0.32] * int(wrong.sum()), widths[wrong], left=edges[:-1][wrong], height=0.3, color=MISS, align="edge")
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(-0.4, 2.2)
    axes.set_yticks([1.65, 0.6], ["true", "predicted"], size=8, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{_name(track)}, {1 - track.loss:.0%} right", size=8, color=INK, loc="left", pad=3)


def _name(track: Track) -> str:
    return shortened(os.path.basename(track.path), 40)


def _caption(shown: Sequence[Track], tracks: Sequence[Track]) -> str:
    return f"{len(shown)} of {len(tracks)} clips, from the worst to the best"
