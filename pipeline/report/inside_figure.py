"""What was seen inside a model while it trained, as one picture: gradients over time, gates, sizes of updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, clean, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

GATE_COLOURS = {"input": BLUE, "forget": ORANGE, "output": GREEN, "update": ORANGE, "reset": PURPLE}
OTHERS = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#F0E442", INK)
CURVES = 8
"""Epochs whose gradients are drawn, evenly chosen."""
USUAL = 1e-3
"""An update of this size, relative to the weights, is usual."""


def inside_figure(readings: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Per recurrent layer the gradient that reaches each step and the gates over the epochs; the updates below.

    Args:
        readings: of `pipeline.stages.inside`, one per epoch; those without a look are passed over.
        path: PNG file to write; not written where there was no look.
    """
    looks = [reading for reading in readings if reading["layers"] or reading["updates"]]
    if not looks:
        return
    layers = [name for name in looks[-1]["layers"] if all(name in look["layers"] for look in looks)]
    figure = new_figure(9.6, 2.7 * len(layers) + 2.9)
    grid = figure.add_gridspec(len(layers) + 1, 2)
    for row, name in enumerate(layers):
        _gradients(figure, figure.add_subplot(grid[row, 0]), looks, name)
        _gates(figure.add_subplot(grid[row, 1]), looks, name)
    _updates(figure.add_subplot(grid[len(layers), :]), looks)
    save_figure(figure, path)


def _gradients(figure: Figure, axes: Axes, looks: Sequence[Mapping[str, Any]], name: str) -> None:
    """One curve per epoch, the last the darkest."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    chosen = sorted({round(i) for i in np.linspace(0, len(looks) - 1, min(CURVES, len(looks)))})
    colours = LinearSegmentedColormap.from_list("epochs", ["#C6DCEC", BLUE, "#00263D"])
    norm = Normalize(looks[0]["epoch"], max(looks[-1]["epoch"], looks[0]["epoch"] + 1))
    for index in chosen:
        curve = np.array(looks[index]["layers"][name]["gradient"], dtype=np.float64)  # None: NaN
        curve[curve <= 0] = np.nan  # nothing arrives: no place on a logarithmic axis
        steps = np.arange(len(curve)) - len(curve) + 1
        marker = "o" if len(curve) < 20 else ""
        axes.plot(steps, curve, color=colours(norm(looks[index]["epoch"])), linewidth=1.6, marker=marker, markersize=3)
    _logarithmic(axes)
    clean(axes, f"{name}: gradient that reaches each step")
    axes.set_xlabel("steps before the last that is read", size=9, color=MUTED)
    _whole(axes.xaxis)
    if len(looks) > 1:
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02, fraction=0.04)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.set_title("epoch", size=8, color=MUTED, loc="left")
        bar.ax.tick_params(labelsize=8, colors=MUTED, length=0)
        _whole(bar.ax.yaxis)


def _gates(axes: Axes, looks: Sequence[Mapping[str, Any]], name: str) -> None:
    """The mean of each gate, the ribbon around it holds the middle eight tenths of the values."""
    epochs = [look["epoch"] for look in looks]
    last = looks[-1]["layers"][name]
    for index, gate in enumerate(last["gates"]):
        rows = [look["layers"][name]["gates"][gate] for look in looks]
        mean, low, high = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("mean", "low", "high"))
        colour = GATE_COLOURS.get(gate, OTHERS[index % len(OTHERS)])
        axes.fill_between(epochs, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(epochs, mean, color=colour, linewidth=1.8, marker="o" if len(epochs) < 12 else "", markersize=3)
        axes.plot([], [], color=colour, linewidth=1.8, label=gate)
    half = last["half_life"]
    spacing = looks[-1]["seconds_per_step"]
    seconds = f", {half * spacing:.2g} s" if half and spacing else ""
    clean(axes, f"{name}: gates" + (f", half-life {half:.3g} frames{seconds}" if half else ""))
    axes.set_xlabel("epoch", size=9, color=MUTED)
    _whole(axes.xaxis)
    if last["gates"]:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
        if all(row["closed"] is not None for row in last["gates"].values()):
            axes.set_ylim(-0.02, 1.02)
    else:
        axes.text(0.5, 0.5, "no gates", transform=axes.transAxes, ha="center", size=10, color=MUTED)
        axes.set_yticks([])


def _updates(axes: Axes, looks: Sequence[Mapping[str, Any]]) -> None:
    """Size of an update relative to the weights, per group of parameters."""
    epochs = [look["epoch"] for look in looks]
    for index, group in enumerate(looks[-1]["updates"]):
        ratios = np.array([look["updates"].get(group) for look in looks], dtype=np.float64)
        ratios[ratios <= 0] = np.nan
        marker = "o" if len(epochs) < 12 else ""
        style = "-" if index < len(OTHERS) else "--"
        colour = OTHERS[index % len(OTHERS)]
        axes.plot(epochs, ratios, style, color=colour, linewidth=1.6, marker=marker, markersize=3, label=group)
    _logarithmic(axes)
    axes.axhline(USUAL, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    clean(axes, "length of an update over length of the weights")
    axes.set_xlabel("epoch", size=9, color=MUTED)
    _whole(axes.xaxis)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _logarithmic(axes: Axes) -> None:
    """A logarithmic y axis of whole decades: a curve that is level must look level."""
    from matplotlib.ticker import NullFormatter

    low, high = axes.dataLim.intervaly
    axes.set_yscale("log")
    if 0 < low <= high:
        axes.set_ylim(10 ** (np.floor(np.log10(low)) - 0.05), 10 ** (np.ceil(np.log10(high)) + 0.05))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _whole(axis: Axis) -> None:
    """Labels at whole numbers alone: there is no half epoch or step."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
