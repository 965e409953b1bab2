"""Two models on the same clips, as a picture: who is right where, and how sure the difference is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.report.drawing import BLUE, GRID, INK, MUTED, ORANGE, PALE_BLUE, clean, new_figure, save_figure, shortened
from pipeline.report.tasks import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTOGRAM_BINS = 25
ENOUGH = 24
"""Letters of a model's name that are shown."""


def comparison_figure(found: dict[str, Any], path: str | Path) -> None:
    """Left: the clips by who is right, or how much the models differ on each; right: the difference and its interval.

    Args:
        found: of `stages.compare`.
        path: PNG file to write.
    """
    figure = new_figure(9.6, 3.4)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.15, 1))
    left, right = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    names = [shortened(found[side]["name"], ENOUGH) for side in "ab"]
    title = TITLES[found["score"]]
    if found["counts"]:
        _draw_counts(left, found["counts"], names)
    else:
        _draw_differences(left, [row["difference"] for row in found["differ"]], found["n"], title)
    _draw_interval(right, found, names, title)
    save_figure(figure, path)


def _draw_counts(axes: Axes, counts: dict[str, int], names: list[str]) -> None:
    labels = ["both right", f"only A: {names[0]}", f"only B: {names[1]}", "neither"]
    values = [counts[key] for key in ("both", "only_a", "only_b", "neither")]
    bars = axes.barh(labels, values, color=[PALE_BLUE, BLUE, ORANGE, GRID], height=0.66)
    axes.bar_label(bars, [str(value) for value in values], padding=4, size=9, color=INK)
    axes.invert_yaxis()
    clean(axes, f"{sum(values)} clips, by who is right")
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)


def _draw_differences(axes: Axes, differences: list[float], clips: int, title: str) -> None:
    """How far apart the models are on each clip; those on which they agree to the bit are at 0."""
    values = differences + [0.0] * (clips - len(differences))
    reach = max((abs(value) for value in values), default=0.0) or 1.0
    axes.hist(values, bins=HISTOGRAM_BINS, range=(-reach, reach), color=PALE_BLUE, edgecolor="white")
    axes.axvline(0, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    clean(axes, f"{clips} clips, by their difference")
    axes.set_xlabel(f"{title} of A minus that of B", size=10, color=MUTED)
    axes.set_ylabel("clips", size=10, color=MUTED)


def _draw_interval(axes: Axes, found: dict[str, Any], names: list[str], title: str) -> None:
    value, low, high = (found[f"difference{end}"] for end in ("", "_low", "_high"))
    colour = {"a": BLUE, "b": ORANGE}.get(found["better"], MUTED)
    axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    if low is not None:
        axes.plot([low, high], [0, 0], color=colour, linewidth=3, solid_capstyle="round")
    axes.plot([value], [0], "o", color=colour, markersize=9)
    reach = 1.25 * max(abs(x) for x in (value, low or 0.0, high or 0.0)) or 1.0
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    better = "undecided" if found["better"] == "undecided" else f"{found['better'].upper()} is better"
    clean(axes, f"{title}, A - B with its 95% interval: {better}")
    forward, back = ("A", "B") if found["higher"] else ("B", "A")
    for side, x, where in ((back, 0.0, "left"), (forward, 1.0, "right")):
        name = names["AB".index(side)]
        axes.text(x, 0.9, f"{side} better\n{name}", transform=axes.transAxes, size=9, color=MUTED, ha=where, va="top")
    axes.set_xlabel(f"A {found['a']['value']:.3g}, B {found['b']['value']:.3g}", size=10, color=MUTED)
