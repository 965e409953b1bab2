"""What the picture and the video of an explanation share: strips over the moments, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.drawing import BLUE, GREEN, GRID, INK, MUTED, ORANGE, PURPLE, shortened
from pipeline.report.explanation import Explanation, LayerView, Values, positive
from pipeline.video.heatmap import Fit, heated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES, SIGNED = "Blues", "RdBu_r"
"""Colours of what lies between 0 and 1, and of what has a sign."""
COLOURS = (ORANGE, BLUE, GREEN, PURPLE, "#8A6D00", "#56B4E9")
MEMORY = {"state": "cell state", "hidden": "hidden state"}
THUMBS = 16
"""Frames of a film strip; as many as moments where there are not more, so that both stand in one column."""


def heated_frames(explanation: Explanation, moments: Sequence[int] | NDArray[Any]) -> list[NDArray[np.uint8]]:
    """The frames of some moments under the heat of the first stream that has one, uint8 (H, W, 3) each."""
    heat = first_heat(explanation)
    fit: Fit = explanation.fit  # type: ignore[assignment]
    shown = explanation.shown
    return [heated(shown[t], heat[t], fit) for t in moments]


def first_heat(explanation: Explanation) -> Values:
    """float32 (T, h, w) in 0..1: what spoke for the answer, of all streams on the finest stream's grid."""
    maps = [stream.heat for stream in explanation.streams]
    finest = max(maps, key=lambda heat: heat.shape[1])
    if len(maps) == 1:
        return positive(finest)
    side = finest.shape[1]
    return positive(np.sum([_spread(heat, side) for heat in maps], axis=0, dtype=np.float32))


def _spread(heat: Values, side: int) -> Values:
    """Heat (T, h, h) on side x side cells; its sum stays what it is."""
    places = np.arange(side) * heat.shape[1] // side
    larger = heat[:, places][:, :, places]
    return (larger * (heat.shape[1] / side) ** 2).astype(np.float32)


def film(axes: Axes, frames: Sequence[NDArray[np.uint8]], steps: int, gap: float = 0.04) -> None:
    """Frames side by side along an axis of `steps` moments, the height of the axes filled."""
    width = steps / len(frames)
    for number, frame in enumerate(frames):
        left = number * width
        axes.imshow(
            frame, extent=(left + gap * width / 2, left + width * (1 - gap / 2), 0, 1), aspect="auto",
            interpolation="bilinear",
        )  # fmt: skip
    axes.set_xlim(0, steps)
    axes.set_ylim(0, 1)
    axes.set_axis_off()


def chosen_thumbs(steps: int, most: int = THUMBS) -> NDArray[np.int64]:
    """Moments for a film strip: the middle of each of so many equal parts."""
    count = min(steps, most)
    return ((np.arange(count) + 0.5) * steps / count).astype(np.int64)


def strip(axes: Axes, values: Values, signed: bool) -> Any:
    """Units (rows) over moments (columns): float32 (T, H). Returns the image, for a colour bar."""
    steps, units = values.shape
    top = (float(np.abs(values).max()) or 1.0) if signed else 1.0
    image = axes.imshow(
        values.T, aspect="auto", interpolation="nearest", cmap=SIGNED if signed else SHARES,
        vmin=-top if signed else 0.0, vmax=top, extent=(0, steps, units, 0),
    )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(GRID)
    return image


def memory_name(layer: LayerView) -> str:
    """What the layer carries from moment to moment, in words."""
    return MEMORY["state" if "state" in layer.values else "hidden"]


def time_ticks(axes: Axes, times: NDArray[np.float64], most: int = 8) -> None:
    """Seconds below the columns of the moments."""
    shown = chosen_thumbs(len(times), most)
    axes.set_xticks(shown + 0.5, [f"{times[t]:.2f}" if times[-1] < 10 else f"{times[t]:.1f}" for t in shown])
    axes.tick_params(axis="x", labelsize=8, colors=MUTED, length=0)
    axes.set_xlim(0, len(times))


def importance(axes: Axes, explanation: Explanation) -> None:
    """Occlusion as bars, integrated gradients as a line, where pooling read as dots; each over its largest size."""
    e = explanation
    middle = np.arange(len(e.times)) + 0.5
    axes.bar(middle, scaled(e.occlusion), width=0.86, color="#B3D4E8", label="hiding it, or all else")
    gradients = np.sum([stream.gradients for stream in e.streams], axis=0)
    axes.plot(middle, scaled(gradients), color=ORANGE, linewidth=1.8, marker="o", markersize=3,
              label="integrated gradients")  # fmt: skip
    for stream, colour in zip(e.streams, (GREEN, PURPLE, "#8A6D00"), strict=False):
        if stream.weights is not None:
            label = f"{stream.weights_of} pooling" + (f", {stream.name}" if len(e.streams) > 1 else "")
            axes.plot(middle, scaled(stream.weights), color=colour, linewidth=1.2, linestyle=(0, (2, 2)), label=label)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    lowest = min(scaled(e.occlusion).min(), scaled(gradients).min(), 0.0)
    axes.set_ylim(lowest - 0.08, 1.08)
    axes.set_yticks([])


def scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the largest absolute value; zeros stay."""
    top = float(np.abs(values).max())
    return values / top if top > 0 else values


def leading(explanation: Explanation, most: int = 5) -> list[int]:
    """Columns of `running` to show: the explained class first, then the likeliest at any moment."""
    if not explanation.classes:
        return [0]
    peaks = explanation.running.max(0)
    order = [int(k) for k in np.argsort(-peaks, kind="stable") if k != explanation.target]
    return [explanation.target, *order][: min(most, len(explanation.classes))]


def running(axes: Axes, explanation: Explanation, legend: bool = True) -> None:
    """The answer after each moment: probabilities of the leading classes, or the number."""
    e = explanation
    ends = np.arange(len(e.times)) + 0.5
    for rank, k in enumerate(leading(e)):
        name = shortened(e.classes[k], 18) if e.classes else "number"
        axes.plot(ends, e.running[:, k], color=COLOURS[rank % len(COLOURS)], linewidth=2.2 if rank == 0 else 1.4,
                  marker="o" if len(ends) < 40 else "", markersize=3, label=name)  # fmt: skip
    if e.classes:
        axes.set_ylim(-0.03, 1.05)
        axes.set_yticks([0, 0.5, 1], ["0", "", "1"])
    axes.tick_params(axis="y", labelsize=8, colors=MUTED, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    if legend:
        side_legend(axes)


def side_legend(axes: Axes) -> None:
    """Outside, at the right."""
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.005, 0.5),
                handlelength=1.4, borderaxespad=0.2)  # fmt: skip


def bare(axes: Axes, title: str) -> None:
    """A title at the left and no box."""
    axes.set_title(title, size=9.5, color=INK, loc="left", pad=3)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
