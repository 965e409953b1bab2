"""The numbers of an explanation as tables and JSON: whatever the pictures show, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.explanation import Explanation
from pipeline.report.tables import valid_text, write_json


def write_numbers(explanation: Explanation, folder: Path) -> None:
    """explanation.json, and three tables: moments.parquet, units.parquet, places.parquet.

    moments: a row per moment: `time`, `occlusion`, `gradients` (of all streams, and of each), `pooling_STREAM`,
    `p_CLASS` or `value`. units: a row per layer, moment and unit with every gate and state. places: a row per stream,
    moment and cell of the heat map, `heat` signed and in the score's unit.
    """
    import pandas as pd

    pd.DataFrame(moments_table(explanation)).to_parquet(folder / "moments.parquet", index=False)
    pd.DataFrame(units_table(explanation)).to_parquet(folder / "units.parquet", index=False)
    pd.DataFrame(places_table(explanation)).to_parquet(folder / "places.parquet", index=False)
    write_json(summary(explanation), folder / "explanation.json")


def summary(explanation: Explanation) -> dict[str, Any]:
    """What an explanation says in a few words and numbers, ready for JSON."""
    e = explanation
    top = np.argsort(-e.occlusion, kind="stable")[:3]
    return {
        "path": valid_text(e.path),
        "task": e.task,
        "answer": e.answer,
        "explained": e.explained,
        "score": e.score,
        "moments": len(e.times),
        "duration": e.duration,
        "most_important_seconds": [float(e.times[t]) for t in top],
        "classes": e.classes,
        "streams": [{"name": s.name, "heat_shape": list(s.heat.shape), "pooling": s.weights_of} for s in e.streams],
        "layers": [_layer(layer) for layer in e.layers],
        "incompleteness": e.incompleteness,
        "fit": e.fit,
        "note": e.note,
        "model": e.model,
    }


def _layer(layer: Any) -> dict[str, Any]:
    half = layer.half_life
    finite = None if half is None else [float(x) if np.isfinite(x) else None for x in half]
    return {"name": layer.name, "kind": layer.kind, "units": layer.memory.shape[1], "half_life_seconds": finite}


def moments_table(explanation: Explanation) -> dict[str, Any]:
    """Columns of moments.parquet."""
    e = explanation
    columns: dict[str, Any] = {"moment": np.arange(len(e.times)), "time": e.times, "occlusion": e.occlusion}
    columns["gradients"] = np.sum([stream.gradients for stream in e.streams], axis=0)
    for stream in e.streams:
        if len(e.streams) > 1:
            columns[f"gradients_{stream.name}"] = stream.gradients
        if stream.weights is not None:
            columns[f"pooling_{stream.name}"] = stream.weights
    names = [f"p_{name}" for name in e.classes] or ["value"]
    return columns | {name: e.running[:, k] for k, name in enumerate(names)}


def units_table(explanation: Explanation) -> dict[str, Any]:
    """Columns of units.parquet; what a layer does not have is NaN."""
    e = explanation
    names = sorted({name for layer in e.layers for name in layer.values})
    columns: dict[str, list[Any]] = {name: [] for name in ("layer", "moment", "time", "unit", *names, "influence")}
    steps = len(e.times)
    for layer in e.layers:
        units = layer.memory.shape[1]
        shape = (steps, units)
        columns["layer"].append(np.repeat(layer.name, steps * units))
        columns["moment"].append(np.repeat(np.arange(steps), units))
        columns["time"].append(np.repeat(e.times, units))
        columns["unit"].append(np.tile(np.arange(units), steps))
        for name in names:
            columns[name].append(_filled(layer.values.get(name), shape))
        columns["influence"].append(_filled(layer.influence, shape))
    return {name: np.concatenate(parts) if parts else [] for name, parts in columns.items()}


def _filled(values: Any, shape: tuple[int, int]) -> np.ndarray:
    """(T * H,) of values (T, P); NaN beyond P, and where there are none."""
    filled = np.full(shape, np.nan, dtype=np.float32)
    if values is not None:
        filled[:, : values.shape[1]] = values[:, : shape[1]]
    return filled.ravel()


def places_table(explanation: Explanation) -> dict[str, Any]:
    """Columns of places.parquet."""
    columns: dict[str, list[Any]] = {name: [] for name in ("stream", "moment", "time", "row", "column", "heat")}
    for stream in explanation.streams:
        steps, height, width = stream.heat.shape
        columns["stream"].append(np.repeat(stream.name, stream.heat.size))
        columns["moment"].append(np.repeat(np.arange(steps), height * width))
        columns["time"].append(np.repeat(explanation.times, height * width))
        columns["row"].append(np.tile(np.repeat(np.arange(height), width), steps))
        columns["column"].append(np.tile(np.arange(width), steps * height))
        columns["heat"].append(stream.heat.ravel())
    return {name: np.concatenate(parts) for name, parts in columns.items()}
