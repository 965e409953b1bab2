"""The page of an explanation: scrub through time, and see the numbers that flow through a cell."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report import explanation_drawing as draw
from pipeline.report.cell_equations import equations
from pipeline.report.explanation import GATES, Explanation, LayerView
from pipeline.report.html import write_page
from pipeline.report.tables import valid_text
from pipeline.video.overlay import jpeg

NUMBERS = 2_000_000
"""Values of units that a page holds, at most; 5 bytes each."""
MOMENTS = 240
"""Moments that it shows, at most."""
STRONGEST = 8


def write_explanation_page(explanation: Explanation, path: str | Path) -> None:
    """Write the page: one file, which needs no network."""
    e = explanation
    kept = kept_moments(e)
    name = valid_text(Path(e.path).name)
    write_page(
        path, "explain.html", name=name, answer=e.answer, explained=e.explained, score=e.score, note=e.note,
        model=e.model[:12], task=e.task, steps=len(e.times), shown=len(kept), content=page_data(e, kept),
    )  # fmt: skip


def kept_moments(explanation: Explanation) -> NDArray[np.int64]:
    """The moments that are shown: all of them, or as many as a page can hold, evenly spread."""
    steps = len(explanation.times)
    per_moment = sum(_count(layer) for layer in explanation.layers)
    most = max(2, min(MOMENTS, NUMBERS // max(1, per_moment)))
    return np.unique(np.linspace(0, steps - 1, min(steps, most)).round().astype(np.int64))


def page_data(explanation: Explanation, kept: NDArray[np.int64]) -> dict[str, Any]:
    """All that the page's script reads."""
    e = explanation
    shown = draw.leading(e, 8)
    return {
        "times": [round(float(t), 4) for t in e.times[kept]],
        "plain": [_address(frame) for frame in e.shown[kept]],
        "heated": [_address(frame) for frame in draw.heated_frames(e, kept)],
        "importance": [
            {"name": "hiding it, or all else", "values": _scaled(e.occlusion[kept])},
            {"name": "integrated gradients", "values": _scaled(sum(s.gradients for s in e.streams)[kept])},  # type: ignore[index]
            *[
                {"name": f"{s.weights_of} pooling ({s.name})", "values": _scaled(s.weights[kept])}
                for s in e.streams
                if s.weights is not None
            ],
        ],
        "answers": [
            {"name": e.classes[k] if e.classes else "value", "values": [float(x) for x in e.running[kept, k]]}
            for k in shown
        ],
        "probabilities": bool(e.classes),
        "layers": [_layer(layer, kept) for layer in e.layers],
    }


def _layer(layer: LayerView, kept: NDArray[np.int64]) -> dict[str, Any]:
    """A layer's arrays, float32 little-endian (T, H) in base64, and its equations."""
    arrays = {name: layer.values[name] for name in layer.values}
    arrays |= {f"{gate}.{part}": x for gate, parts in layer.sums.items() for part, x in parts.items()}
    half = layer.half_life
    return {
        "name": layer.name,
        "kind": layer.kind,
        "form": layer.form,
        "backward": layer.backward,
        "zoneout": layer.zoneout,
        "units": layer.memory.shape[1],
        "memory": "state" if "state" in layer.values else "hidden",
        "gates": [name for name in GATES if name in layer.values],
        "arrays": {name: {"width": x.shape[1], "data": _packed(x[kept])} for name, x in arrays.items()},
        "equations": [asdict(line) for line in equations(layer)],
        "order": [int(u) for u in layer.order()],
        "half_life": None if half is None else [round(float(x), 4) if np.isfinite(x) else None for x in half],
        "strongest": strongest(layer),
    }


def strongest(layer: LayerView) -> list[int]:
    """The units that handed on most to the answer; those that vary most where nothing reads them."""
    size = layer.memory.std(0) if layer.influence is None else np.abs(layer.influence).sum(0)
    return [int(u) for u in np.argsort(-size, kind="stable")[:STRONGEST]]


def _count(layer: LayerView) -> int:
    arrays = [*layer.values.values(), *(x for parts in layer.sums.values() for x in parts.values())]
    return sum(x.shape[1] for x in arrays)


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _scaled(values: NDArray[np.float64]) -> list[float]:
    return [round(float(x), 5) for x in draw.scaled(values)]


def _address(frame: NDArray[np.uint8]) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(frame)).decode()}"
