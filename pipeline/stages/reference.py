"""What a model was trained and tested on, as its card keeps it, for a comparison with the files it is used on later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.strata import values
from pipeline.report.drift import bin_names, binned, compare

BINS = 10
"""Most bins of numbers; each has at least `LEAST` of what it was made from."""
LEAST = 5

Rows = Sequence[Mapping[str, Any]]


def training_reference(table: pd.DataFrame) -> dict[str, Any]:
    """What the training clips are: {"labels": {class: clips}}, or of numbers {"values": {edges, counts}}.

    A clip with classes over time counts as the one that lasts longest, one with a curve of numbers as their mean.
    """
    rows = table[(table["split"] == "train") & (table["status"] == "ok")]
    numbers = values(rows)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers):
        return {"values": quantile_bins(numbers)}
    counts = rows["label"].value_counts().sort_index()
    return {"labels": {str(name): int(count) for name, count in counts.items()}}


def test_reference(rows: Rows) -> dict[str, Any]:
    """What the model said about the test clips: {"labels": ..., "confidence": {edges, counts}}, or {"values": ...}.

    Args:
        rows: of `result_row`.
    """
    labels, sure, numbers = answers(rows)
    if numbers:
        return {"values": quantile_bins(numbers)}
    return {"labels": dict(Counter(labels)), "confidence": quantile_bins(sure)} if labels else {}


def answers(rows: Rows) -> tuple[list[str], list[float], list[float]]:
    """Of the rows that were answered: labels, how sure the model was of each, or numbers.

    Of an answer over time: the label that lasts longest, the mean probability of its segments by their length, the mean
    of its values.
    """
    labels, sure, numbers = [], [], []
    for row in rows:
        if row["status"] != "ok":
            continue
        if "value" in row:
            numbers.append(float(row["value"]))
        elif "values" in row:
            numbers.append(float(np.mean([item["value"] for item in row["values"]])))
        else:
            labels.append(str(row["label"]))
            sure.append(float(row["probability"]) if "probability" in row else _segments_confidence(row["segments"]))
    return labels, sure, numbers


def _segments_confidence(segments: Sequence[Mapping[str, Any]]) -> float:
    lengths = np.array([max(part["end"] - part["start"], 1e-9) for part in segments])
    return float(np.average([part["probability"] for part in segments], weights=lengths)) if len(lengths) else 0.0


def quantile_bins(numbers: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """{"edges": between bins that hold about as many numbers each, "counts": how many each holds}."""
    parts = max(2, min(BINS, len(numbers) // LEAST))
    edges = np.unique(np.quantile(np.asarray(numbers, dtype=np.float64), np.arange(1, parts) / parts))
    kept = [float(f"{edge:.6g}") for edge in edges]
    return {"edges": kept, "counts": binned([float(x) for x in numbers], kept)}


def drifts(reference: Mapping[str, Any], rows: Rows) -> list[dict[str, Any]]:
    """How the answers to some files differ from a card's `reference`; empty where it has none or nothing was answered.

    Labels (or values) are compared with those of the training clips. A model that answers one class too often does so
    on its test clips too: that is no drift, so there it must also differ from what it said about them. How sure it is
    is compared with the test clips.

    Args:
        reference: {"train": `training_reference`, "test": `test_reference`}; either may be absent.
        rows: of `result_row`.

    Returns:
        Items of `report.drift.compare` with `title` and `before_name`, in the order they are drawn.
    """
    labels, sure, numbers = answers(rows)
    train, test = reference.get("train", {}), reference.get("test", {})
    found = []
    if labels and "labels" in train:
        names = sorted(set(train["labels"]) | set(labels) | set(test.get("labels", {})))
        part = _labels("labels", names, train["labels"], labels)
        if "labels" in test:
            part["drift"] = part["drift"] and _labels("labels", names, test["labels"], labels)["drift"]
        found.append(part | {"title": "labels", "before_name": f"training ({sum(part['before'])} clips)"})
    if numbers and "values" in train:
        part = _numbers("values", train["values"], numbers)
        if "values" in test:
            part["drift"] = part["drift"] and _numbers("values", test["values"], numbers)["drift"]
        found.append(part | {"title": "values", "before_name": f"training ({sum(part['before'])} clips)"})
    if sure and "confidence" in test:
        part = _numbers("confidence", test["confidence"], sure)
        found.append(part | {"title": "how sure the model is", "before_name": f"test ({sum(part['before'])} clips)"})
    return found


def _labels(name: str, names: list[str], before: Mapping[str, int], now: Sequence[str]) -> dict[str, Any]:
    counts = Counter(now)
    return compare(name, names, [before.get(one, 0) for one in names], [counts[one] for one in names])


def _numbers(name: str, before: Mapping[str, Any], now: Sequence[float]) -> dict[str, Any]:
    edges = before["edges"]
    return compare(name, bin_names(edges), before["counts"], binned(now, edges))
