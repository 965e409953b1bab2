"""What all figures share. Drawn with matplotlib's objects alone (no pyplot): nothing is kept between calls and no
display is needed. Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PALE_BLUE = "#B3D4E8"
INK, MUTED, GRID, EMPTY = "#222222", "#6B6B6B", "#E4E4E4", "#F6F7F8"
DPI = 150
NAME_LENGTH = 24


def new_figure(width: float, height: float) -> Figure:
    """A white figure of so many inches, laid out so that nothing is cut."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the PNG, making its folder; `tight` keeps whatever stands outside the axes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12)


def clean(axes: Axes, title: str) -> None:
    """No box, faint grid, the quantity as a title at the left."""
    axes.set_title(title, size=11, color=INK, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(labelsize=9, colors=MUTED, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def shortened(name: str, length: int = NAME_LENGTH) -> str:
    """At most so many characters, the cut shown; a dollar sign must not start a formula."""
    short = name if len(name) <= length else name[: length - 1] + "…"
    return short.replace("$", r"\$")
