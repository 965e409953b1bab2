"""How the answers to an archive differ from what a model was trained and tested on: numbers, a verdict, a picture.

The measure is the population stability index, PSI = sum((a - b) ln(a / b)) over shares a and b, as credit scoring has
used it since the 1990s; beside it the Jensen-Shannon divergence in bits (Lin 1991), which lies in 0..1. Two samples of
one population differ too, small ones by a PSI that looks alarming: a drift is warned of only where PSI is above `LIMIT`
and Pearson's chi-square test of homogeneity finds such a difference less than once in a hundred times (`LEVEL`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.drawing import BLUE, INK, MUTED, ORANGE, clean, new_figure, save_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMIT = 0.2
"""PSI below which a difference is no matter, however certain it is; the usual rule calls 0.1 to 0.25 a moderate one."""
LEVEL = 0.01
"""Chance of a false alarm per comparison, at most."""
PRIOR = 0.5
"""Added to each count, so that a bin that one side lacks has a logarithm."""
SHOWN = 20
"""Bins that fit into a picture."""


def psi(one: Sequence[int], other: Sequence[int]) -> float:
    """Population stability index of two rows of counts over the same bins, at least 0."""
    a, b = _shares(one), _shares(other)
    return float(((a - b) * np.log(a / b)).sum())


def jensen_shannon(one: Sequence[int], other: Sequence[int]) -> float:
    """Jensen-Shannon divergence of two rows of counts over the same bins, in bits: 0 (alike) to 1."""
    a, b = (np.asarray(counts, dtype=np.float64) / max(sum(counts), 1) for counts in (one, other))
    middle = (a + b) / 2
    return float(sum((p[p > 0] * np.log2(p[p > 0] / middle[p > 0])).sum() for p in (a, b)) / 2)


def chance(one: Sequence[int], other: Sequence[int]) -> float:
    """How often two samples of one population differ as much, by Pearson's chi-square: 0..1.

    Bins of which a sample should have less than one are put together (Cochran 1954).
    """
    table = np.array([one, other], dtype=np.float64)
    if not table.sum(axis=1).all():
        return 1.0
    rare = table.sum(axis=0) * table.sum(axis=1).min() < table.sum()
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    free = table.shape[1] - 1
    if free < 1:
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chi_square = float(((table - expected) ** 2 / expected).sum())
    return _above(chi_square, free)


def _above(x: float, free: int) -> float:
    """Chance that a chi-square with `free` degrees of freedom is above x: the finite sum that it is for whole ones."""
    if x <= 0:
        return 1.0
    half, odd = x / 2, free % 2
    terms = (k + odd / 2 for k in range(free // 2))
    total = sum(math.exp(-half + power * math.log(half) - math.lgamma(power + 1)) for power in terms)
    return min(1.0, total + (math.erfc(math.sqrt(half)) if odd else 0.0))


def compare(name: str, bins: Sequence[str], before: Sequence[int], now: Sequence[int]) -> dict[str, Any]:
    """Two rows of counts over the same bins, as plain values.

    Returns:
        name, bins, before, now; psi, js, chance; drift: whether it is one.
    """
    value, by_chance = psi(before, now), chance(before, now)
    return {
        "name": name,
        "bins": list(bins),
        "before": [int(x) for x in before],
        "now": [int(x) for x in now],
        "psi": value,
        "js": jensen_shannon(before, now),
        "chance": by_chance,
        "drift": value > LIMIT and by_chance < LEVEL,
    }


def binned(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values lie in each bin: below the first edge, from each edge to the next, from the last one on."""
    places = np.searchsorted(np.asarray(edges), np.asarray(values, dtype=np.float64), side="right")
    return [int(n) for n in np.bincount(places, minlength=len(edges) + 1)]


def bin_names(edges: Sequence[float]) -> list[str]:
    """What the bins of `binned` are called."""
    if not len(edges):
        return ["all"]
    inner = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:.3g}", *inner, f"{edges[-1]:.3g} and more"]


def drift_figure(parts: Sequence[dict[str, Any]], path: str | Path) -> None:
    """A panel per comparison: the share of each bin before and now; a panel with drift has an orange title.

    Args:
        parts: of `compare`, with `before_name` and `title`; of more than `SHOWN` bins those are shown in which the two
            differ most.
        path: PNG file to write.
    """
    rows = [min(len(part["bins"]), SHOWN) for part in parts]
    figure = new_figure(7.6, 0.34 * sum(rows) + 1.25 * len(rows))
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=[n + 2.0 for n in rows])[:, 0]
    for axes, part in zip(panels, parts, strict=True):
        _panel(axes, part)
    save_figure(figure, path)


def drift_text(part: dict[str, Any]) -> str:
    """The numbers of one comparison."""
    chance = part["chance"]
    return f"PSI {part['psi']:.2f}, by chance " + (f"{chance:.2g}" if chance >= 0.001 else "below 0.001")


def _panel(axes: Axes, part: dict[str, Any]) -> None:
    before, now = (np.asarray(part[side]) / max(sum(part[side]), 1) for side in ("before", "now"))
    chosen = np.sort(np.argsort(-np.abs(before - now), kind="stable")[:SHOWN])
    places = np.arange(len(chosen))
    axes.barh(places - 0.19, before[chosen], height=0.36, color="#BDBDBD", label=part["before_name"])
    axes.barh(places + 0.19, now[chosen], height=0.36, color=BLUE, label=f"now ({sum(part['now'])} files)")
    verdict = "drift" if part["drift"] else "no drift"
    if not part["drift"] and part["psi"] > LIMIT and part["chance"] < LEVEL:
        verdict = "as the answers to the test clips"
    clean(axes, "")
    title = f"{part['title']}: {verdict} ({drift_text(part)})"
    axes.set_title(title, loc="left", size=11, color=ORANGE if part["drift"] else INK)
    axes.set_yticks(places, [shortened(part["bins"][i]) for i in chosen], size=9, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of the files", size=9, color=MUTED)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")


def _shares(counts: Sequence[int]) -> NDArray[np.float64]:
    padded = np.asarray(counts, dtype=np.float64) + PRIOR
    return padded / padded.sum()
