"""A recording at a glance: its events as bars, the probabilities below as a heat map; of minutes or of hours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.report.drawing import EMPTY, GRID, INK, MUTED, new_figure, save_figure, shortened
from pipeline.report.events import Event
from pipeline.report.tracks import class_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 1200
"""Columns that a heat map has at most."""
FINEST = 1 / 64
"""Seconds of a column at first; doubled whenever the columns do not reach."""
SHOWN = 14
"""Classes that a picture shows at most."""
FAINT = 0.1
"""A class without an event that never reaches this probability is not shown."""
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""Seconds between two ticks."""


class Overview:
    """Means of probabilities over time in a bounded number of columns, however long it goes on.

    Args:
        classes: how many.
        columns: at most; even.

    Attributes:
        width: seconds of a column.
        highest: float64 (K), of each class.
    """

    def __init__(self, classes: int, columns: int = COLUMNS) -> None:
        self.width = FINEST
        self.highest = np.zeros(classes)
        self._sums = np.zeros((columns, classes))
        self._counts = np.zeros(columns, dtype=np.int64)

    def add(self, time: float, probabilities: NDArray[np.floating]) -> None:
        """One answer: seconds, 0 or more, and (K)."""
        while time >= self.width * len(self._counts):
            self._halve()
        place = int(time / self.width)
        self._sums[place] += probabilities
        self._counts[place] += 1
        np.maximum(self.highest, probabilities, out=self.highest)

    def columns(self, duration: float) -> NDArray[np.float64]:
        """(N, K) up to a time in seconds; a column without an answer has those of the nearest one that has some."""
        count = min(max(1, int(np.ceil(duration / self.width))), len(self._counts))
        filled = np.flatnonzero(self._counts)
        if not len(filled):
            return np.zeros((count, len(self.highest)))
        nearest = filled[np.searchsorted((filled[1:] + filled[:-1]) / 2, np.arange(count))]
        means: NDArray[np.float64] = self._sums[nearest] / self._counts[nearest, None]
        return means

    def _halve(self) -> None:
        half = len(self._counts) // 2
        for array in (self._sums, self._counts):
            array[:half] = array[0 : 2 * half : 2] + array[1 : 2 * half : 2]
            array[half:] = 0
        self.width *= 2


def timeline_figure(
    overview: Overview, events: Sequence[Event], classes: Sequence[str], duration: float, title: str, path: str | Path
) -> None:
    """Draw it.

    Args:
        overview: of the probabilities.
        events: of the recording.
        classes: K names; of more than `SHOWN` those that events last longest, then those with the highest probability.
        duration: seconds.
        title: the recording's name.
        path: PNG file to write.
    """
    shown = _shown(overview, events, classes)
    colours = class_colours(len(classes))
    duration = max(duration, 1e-3)
    figure = new_figure(11.0, 1.5 + 0.5 * len(shown))
    above, below = figure.subplots(2, 1, sharex=True)
    _bars(above, events, [classes[number] for number in shown], [colours[number] for number in shown])
    picture = overview.columns(duration)[:, shown].T
    heat = below.imshow(
        picture, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest",
        extent=(0, picture.shape[1] * overview.width, len(shown) - 0.5, -0.5),
    )  # fmt: skip
    left = f", {len(shown)} of {len(classes)} labels" if len(shown) < len(classes) else ""
    count = "1 event" if len(events) == 1 else f"{len(events)} events"
    for axes, text in ((above, f"{shortened(title, 60)}: {count}{left}"), (below, "probability")):
        axes.set_title(text, size=10, color=INK, loc="left")
        axes.set_yticks(range(len(shown)), [shortened(classes[number]) for number in shown], size=8.5, color=INK)
        axes.tick_params(colors=MUTED, length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlim(0, duration)
    _ticks(below, duration)
    bar = figure.colorbar(heat, ax=below, fraction=0.02, pad=0.01)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.ax.tick_params(labelsize=8, colors=MUTED, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    save_figure(figure, path)


def _shown(overview: Overview, events: Sequence[Event], classes: Sequence[str]) -> list[int]:
    """The classes to draw, in their order; one at least."""
    lasting = dict.fromkeys(classes, 0.0)
    for event in events:
        lasting[event.label] += event.length
    ranked = sorted(range(len(classes)), key=lambda number: (-lasting[classes[number]], -overview.highest[number]))
    seen = [number for number in ranked if lasting[classes[number]] > 0 or overview.highest[number] >= FAINT]
    return sorted((seen or ranked[:1])[:SHOWN])


def _bars(axes: Axes, events: Sequence[Event], names: Sequence[str], colours: Sequence[object]) -> None:
    """A row per class."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    for row, (name, colour) in enumerate(zip(names, colours, strict=True)):
        axes.axhspan(row - 0.36, row + 0.36, color=EMPTY, linewidth=0)
        spans = [(event.start, event.length) for event in events if event.label == name]
        if spans:  # an edge keeps what is shorter than a pixel visible
            axes.broken_barh(spans, (row - 0.36, 0.72), facecolor=colour, edgecolor=colour, linewidth=0.6)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _ticks(axes: Axes, duration: float) -> None:
    """Round times: 0:30 in minutes and seconds, 1:30:00 with hours; below ten seconds numbers of seconds."""
    if duration < 10:
        axes.set_xlabel("seconds", size=9, color=MUTED)
        return
    step = next((step for step in STEPS if duration / step <= 12), STEPS[-1])
    places = list(range(0, int(duration) + 1, step))
    axes.set_xticks(places, [_clock(place, duration >= 3600) for place in places], size=8.5)
    axes.set_xlabel("hours, minutes, seconds" if duration >= 3600 else "minutes, seconds", size=9, color=MUTED)


def _clock(seconds: int, hours: bool) -> str:
    if hours:
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{seconds // 60}:{seconds % 60:02d}"
