"""One picture of the run: score against gap for every member, a row per task, and the time of a step beside it.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; markers differ too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lab.summary import Results, Variant
from lab.tasks import Task

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, MUTED, GRID, REFERENCE = "#222222", "#6B6B6B", "#E8E8E8", "#9A9A9A"
DPI = 130
GROUPS = {
    "before gates": ("none", "hmm", "rnn", "irnn"),
    "LSTM, GRU, variants": ("lstm", "gru", "peephole_lstm", "coupled_lstm", "layer_norm_lstm"),
}
NEWER = "newer"
STARTS = "how an LSTM or GRU starts"
OURS = "orthogonal"
COMPARED = (
    ("lstm", "default"), ("lstm", "no forget bias"), ("lstm", OURS), ("lstm", "chrono"),
    ("gru", "default"), ("gru", OURS), ("gru", "chrono"),
)  # fmt: skip


def draw(results: Results, path: Path) -> None:
    """Write the PNG."""
    columns = _columns(results)
    count = len(results.tasks)
    figure = Figure(figsize=(3.1 * len(columns) + 2.6, 1.75 * count + 1.5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    ratios = [1.0] * len(columns) + [0.62]
    grid = figure.add_gridspec(count + 1, len(columns) + 1, width_ratios=ratios, height_ratios=[0.5, *[1.0] * count])
    for number, (title, variants) in enumerate(columns.items()):
        _legend(figure.add_subplot(grid[0, number]), title, variants)
        for row, task in enumerate(results.tasks):
            axes = figure.add_subplot(grid[row + 1, number])
            _panel(axes, results, task, variants, title)
            if number == 0:
                name = "R²" if task.kind == "number" else "accuracy"
                axes.set_ylabel(f"{task.title}\n{name}", size=9, color=INK)
    _key(figure.add_subplot(grid[0, -1]))
    _times(figure.add_subplot(grid[1:, -1]), results)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI)


def _columns(results: Results) -> dict[str, list[Variant]]:
    """Title -> what a column compares; columns of members that were not run are left out."""
    there = results.variants()
    columns = {title: [v for v in there if v[0] in names and v[1] in ("", OURS)] for title, names in GROUPS.items()}
    grouped = {name for names in GROUPS.values() for name in names}
    columns[NEWER] = [v for v in there if v[0] not in grouped and v[1] in ("", OURS)]
    starts = [v for v in COMPARED if v in there]
    columns[STARTS] = starts if len(starts) > 2 else []
    return {title: variants for title, variants in columns.items() if variants}


def _panel(axes: Axes, results: Results, task: Task, variants: Sequence[Variant], title: str) -> None:
    gaps = sorted({point.gap for variant in results.variants() for point in results.points(task, variant)})
    place = {gap: number for number, gap in enumerate(gaps)}
    axes.axhline(task.chance, color=REFERENCE, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.axhline(task.solved, color=REFERENCE, linewidth=0.9)
    if ("lstm", OURS) not in variants:
        points = results.points(task, ("lstm", OURS))
        axes.plot([place[p.gap] for p in points], [p.mean for p in points], color="#CFCFCF", linewidth=3, zorder=1)
    for number, variant in enumerate(variants):
        _curve(axes, results, task, variant, number, place)
        if title != STARTS and variant[1] == OURS:
            points = results.points(task, (variant[0], "default"))
            xs, ys = [place[p.gap] for p in points], [p.mean for p in points]
            axes.plot(xs, ys, color=COLOURS[number], linewidth=1.0, linestyle=(0, (4, 2)), alpha=0.8, zorder=2)
    axes.set_xticks(range(len(gaps)), [str(gap) for gap in gaps])
    axes.set_xlim(-0.25, len(gaps) - 0.75)
    axes.set_ylim(task.chance - 0.09, 1.05)
    axes.set_xlabel(task.gap, size=8, color=MUTED, labelpad=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(labelsize=8, colors=MUTED, length=0, pad=2)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _curve(axes: Axes, results: Results, task: Task, variant: Variant, number: int, place: dict[int, int]) -> None:
    """Mean over the seeds, and bars from the lowest to the highest; hollow where chance is assumed."""
    points = results.points(task, variant)
    shift = (number - 2) * 0.035  # intervals that lie on one another would hide
    xs = [place[p.gap] + shift for p in points]
    colour = COLOURS[number]
    axes.plot(xs, [p.mean for p in points], color=colour, linewidth=1.6, zorder=3)
    axes.vlines(xs, [p.low for p in points], [p.high for p in points], color=colour, linewidth=1.2, zorder=3)
    for x, p in zip(xs, points, strict=True):
        face = "white" if p.assumed == p.seeds else colour
        axes.plot([x], [p.mean], MARKERS[number], markersize=4.5, color=colour, markerfacecolor=face, zorder=4)


def _legend(axes: Axes, title: str, variants: Sequence[Variant]) -> None:
    axes.set_axis_off()
    handles = [
        Line2D([], [], color=COLOURS[n], marker=MARKERS[n], markersize=5, linewidth=1.8) for n in range(len(variants))
    ]
    starts = title == STARTS
    names = [f"{kind} {init}" if starts else kind for kind, init in variants]
    if ("lstm", OURS) not in variants:
        handles.append(Line2D([], [], color="#CFCFCF", linewidth=3))
        names.append("lstm")
    axes.text(0, 1.0, title, size=11, color=INK, weight="bold", va="top", transform=axes.transAxes)
    axes.legend(
        handles, names, frameon=False, fontsize=8.5, labelcolor=INK, ncols=2, loc="upper left", borderpad=0,
        bbox_to_anchor=(0, 0.8), handlelength=1.8, columnspacing=1.2, labelspacing=0.3, borderaxespad=0,
    )  # fmt: skip


def _key(axes: Axes) -> None:
    """What the kinds of lines mean."""
    axes.set_axis_off()
    lines = {
        "our start": Line2D([], [], color=INK, linewidth=1.6),
        "PyTorch's start": Line2D([], [], color=INK, linewidth=1.0, linestyle=(0, (4, 2))),
        "hollow: not tried": Line2D([], [], color=INK, marker="o", markerfacecolor="white", linewidth=0),
        "solved": Line2D([], [], color=REFERENCE, linewidth=0.9),
        "chance": Line2D([], [], color=REFERENCE, linewidth=0.9, linestyle=(0, (1, 2))),
    }
    axes.legend(
        list(lines.values()), list(lines), frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left", borderpad=0,
        handlelength=1.8, labelspacing=0.3, borderaxespad=0,
    )  # fmt: skip


def _times(axes: Axes, results: Results) -> None:
    """Time of a training step over the LSTM's, shortest on top, on a logarithmic axis."""
    rows = sorted(results.times.items(), key=lambda item: -item[1])
    for place, (_, ratio) in enumerate(rows):
        axes.plot([1, ratio], [place, place], color="#B3D4E8", linewidth=7, solid_capstyle="butt")
        axes.plot([ratio], [place], "o", color=COLOURS[0], markersize=5)
        side, place_of_text = ("left", ratio * 1.15) if ratio >= 1 else ("right", ratio / 1.15)
        axes.text(place_of_text, place, f"{ratio:.2f}", va="center", ha=side, size=8, color=MUTED)
    axes.axvline(1, color=INK, linewidth=0.9)
    axes.set_xscale("log")
    if rows:
        axes.set_xlim(min(0.3, rows[-1][1] * 0.4), max(2.0, rows[0][1] * 2.2))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], size=8.5, color=INK)
    axes.set_title("time of a training step\nover the LSTM's", size=9.5, color=INK, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0, labelsize=8.5, which="both")
    ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], color=MUTED)
    axes.minorticks_off()
