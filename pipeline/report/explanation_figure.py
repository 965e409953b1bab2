"""The picture of an explanation: film strip, importance, running answer; gates, memory and half-lives per layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report import explanation_drawing as draw
from pipeline.report.drawing import BLUE, INK, MUTED, new_figure, save_figure, shortened
from pipeline.report.explanation import Explanation, LayerView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH = 11.0
"""Inches."""
FILM = 0.135
"""Inches below which a film strip's frame would be nothing but colour."""


def explanation_figure(explanation: Explanation, path: str | Path) -> None:
    """Draw an explanation.

    Args:
        explanation: one clip's.
        path: PNG file to write.
    """
    e = explanation
    frames = draw.heated_frames(e, draw.chosen_thumbs(len(e.times)))
    height, width = frames[0].shape[:2]
    strip = min(2.6, max(FILM, 0.86 * WIDTH / len(frames) * height / width))
    top, rows = strip + 2.5, 1.55
    figure = new_figure(WIDTH, top + rows * len(e.layers))
    parts = figure.subfigures(1 + len(e.layers), 1, squeeze=False, height_ratios=[top, *[rows] * len(e.layers)])[:, 0]
    _over_time(parts[0], e, frames, strip)
    for part, layer in zip(parts[1:], e.layers, strict=True):
        _layer(part, layer, e)
    name = shortened(Path(e.path).name, 60)
    figure.suptitle(f"{name}: {e.answer}   explained: {e.explained}", x=0.01, ha="left", size=12, color=INK)
    save_figure(figure, path)


def _over_time(part: SubFigure, e: Explanation, frames: list[np.ndarray], strip: float) -> None:
    axes = part.subplots(3, 1, height_ratios=[strip, 0.8, 1.0])
    draw.film(axes[0], frames, len(e.times))
    streams = " + ".join(stream.name for stream in e.streams)
    draw.bare(axes[0], f"what spoke for the answer, and where in the frame ({streams})")
    axes[0].set_axis_off()
    draw.importance(axes[1], e)
    draw.bare(axes[1], "which moments the answer hangs on")
    axes[1].set_xticks([])
    draw.side_legend(axes[1])
    draw.running(axes[2], e)
    draw.bare(axes[2], "what the model answers after each moment")
    for pane in axes[1:]:
        pane.set_xlim(0, len(e.times))
    draw.time_ticks(axes[2], e.times, 12)
    axes[2].set_xlabel("seconds", size=8, color=MUTED, labelpad=1)


def _layer(part: SubFigure, layer: LayerView, e: Explanation) -> None:
    """Each gate, the memory, and the units' half-lives; rows are units, the longest memory first."""
    gates, order = layer.gates, layer.order()
    forgets = layer.half_life is not None
    columns = len(gates) + 1 + forgets
    axes = part.subplots(1, columns, squeeze=False, width_ratios=[1.0] * (len(gates) + 1) + [0.8] * forgets)[0]
    way = ", read backwards" if layer.backward else ""
    for pane, (name, values) in zip(axes, gates.items(), strict=False):
        image = draw.strip(pane, values[:, order[order < values.shape[1]]], signed=float(values.min()) < 0)
        draw.bare(pane, f"{name} gate")
    _bar(part, axes[: len(gates)], image if gates else None)
    memory = axes[len(gates)]
    image = draw.strip(memory, layer.memory[:, order], signed=True)
    draw.bare(memory, draw.memory_name(layer))
    _bar(part, [memory], image)
    axes[0].set_ylabel(f"{len(order)} units", size=8, color=MUTED)
    part.suptitle(f"{layer.name} ({layer.kind}{way})", x=0.01, ha="left", size=10, color=INK, fontweight="bold")
    for pane in axes[: len(gates) + 1]:
        draw.time_ticks(pane, e.times, 4)
    if forgets:
        _half_lives(axes[-1], layer, order, e.duration)


def _bar(part: Figure | SubFigure, axes: list[Axes], image: object) -> None:
    """One colour bar for panes of one scale."""
    if image is None:
        return
    bar = part.colorbar(image, ax=list(axes), pad=0.01, fraction=0.03, aspect=18)  # type: ignore[arg-type]
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7, colors=MUTED, length=0)


def _half_lives(axes: Axes, layer: LayerView, order: np.ndarray, duration: float) -> None:
    """Seconds in which each unit forgets half, in the order of the rows beside it."""
    half = layer.half_life[order]  # type: ignore[index]
    finite = np.isfinite(half) & (half > 0)
    rows = np.arange(len(half)) + 0.5
    axes.plot(half[finite], rows[finite], ".", color=BLUE, markersize=3)
    axes.set_xscale("log")
    _few_ticks(axes, [*half[finite], duration])
    axes.set_ylim(len(half), 0)
    axes.set_yticks([])
    if duration > 0:
        axes.axvline(duration, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.set_xlabel("dashed: the clip", size=7.5, color=MUTED, labelpad=1)
    draw.bare(axes, "half-life, s")
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.7)
    axes.tick_params(axis="x", which="both", labelsize=8, colors=MUTED, length=0)


def _few_ticks(axes: Axes, values: list[float]) -> None:
    """Three labels at round numbers, which a logarithmic axis of less than a decade would not have."""
    from matplotlib.ticker import NullFormatter, NullLocator

    present = [value for value in values if value > 0]
    if not present:
        return
    rounds = [step * 10.0**power for power in range(-4, 7) for step in (1, 2, 5)]
    inside = [x for x in rounds if min(present) <= x <= max(present)]
    chosen = [inside[k] for k in np.unique(np.linspace(0, len(inside) - 1, 3).round().astype(int))] if inside else []
    axes.set_xticks(chosen, [f"{x:g}" for x in chosen])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
