"""Where a model does well and where not: its score by the length of a clip, the size of its frames, and its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.bootstrap import Floats
from pipeline.report.tracks import Track
from pipeline.report.variants import score_of, tally

PARTS = 4
"""Parts of about as many clips each that lengths, and more sizes than these, are cut into."""


def breakdown(tracks: Sequence[Track], rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Scores of parts of the scored clips.

    Args:
        tracks: the clips.
        rows: their rows of a catalog: duration (seconds), width, height (pixels), unit (source group).

    Returns:
        `length`, `size` and `source`: rows `{name, clips, score, score_low, score_high}`; the score is the share of
        right answers (of clips or moments), or the mean absolute error. Sources with the lowest score come first.
    """
    if not len(tracks) or rows.empty:
        return {"length": [], "size": [], "source": []}
    losses = tally(tracks)
    share = bool(np.issubdtype(tracks[0].true.dtype, np.integer))
    units = [str(unit) for unit in rows["unit"]]
    pixels = np.asarray(rows["width"] * rows["height"], dtype=np.float64)
    exact = [f"{int(w)} x {int(h)}" for w, h in zip(rows["width"], rows["height"], strict=True)]
    lengths = _quantiles(rows["duration"].to_numpy(dtype=np.float64), "{:.1f} to {:.1f} s")
    sizes = exact if len(set(exact)) <= PARTS else _quantiles(np.sqrt(pixels), "{:.0f} to {:.0f} pixels a side")
    order = {name: value for value, name in sorted(zip(pixels, sizes, strict=True), reverse=True)}
    found = {
        "length": _parts(lengths, losses, units, share),
        "size": sorted(_parts(sizes, losses, units, share), key=lambda row: order[row["name"]]),
        "source": _parts(units, losses, units, share),
    }
    found["source"].sort(key=lambda row: row["score"] if share else -row["score"])
    return found


def _quantiles(values: Floats, form: str) -> list[str]:
    """The name of each value's part; equal values are in one part."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, PARTS + 1)[1:-1], method="lower"))
    part = np.searchsorted(edges, values, side="left")
    bounds = {int(p): (values[part == p].min(), values[part == p].max()) for p in np.unique(part)}
    return [form.format(*bounds[int(p)]) for p in part]


def _parts(names: Sequence[str], losses: Floats, units: Sequence[str], share: bool) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys(sorted(names, key=_leading_number)):
        chosen = [i for i, other in enumerate(names) if other == name]
        score = score_of(losses[chosen], [units[i] for i in chosen], share)
        found.append({"name": name, "clips": len(chosen), **score})
    return found


def _leading_number(name: str) -> tuple[float, str]:
    first = name.split(" ")[0]
    try:
        return float(first), name
    except ValueError:
        return float("inf"), name
