"""What the clips of a catalog are alike in: their classes, or how large their values are."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.data.target_text import class_seconds, mean_value, target_texts

BINS = 5
"""Parts of equal size that values are divided into, so that each split gets small and large ones."""


def strata(frame: pd.DataFrame) -> NDArray[np.str_]:
    """Per row what a split is balanced by: the label; of clips with values, the quantile bin of the (mean) value.

    Args:
        frame: a catalog; its column `target` may be absent where the task has a class per clip.
    """
    numbers = values(frame)
    known = np.isfinite(numbers)
    names = frame["label"].to_numpy(dtype=str)
    if not known.any():
        return names
    edges = np.unique(np.quantile(numbers[known], np.arange(1, BINS) / BINS))
    bins = np.searchsorted(edges, numbers, side="right")
    return np.where(known, np.char.add("bin ", bins.astype(str)), names)


def values(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Per row the value, or the mean of the listed ones; NaN for clips that have classes."""
    return np.array([mean_value(text) for text in target_texts(frame)], dtype=np.float64)


def class_names(frame: pd.DataFrame) -> list[str]:
    """The classes that occur, sorted; empty where clips have values."""
    found = set(frame["label"]) - {""}
    for text in target_texts(frame):
        found |= class_seconds(text, np.inf).keys()
    return sorted(found)


def class_counts(frame: pd.DataFrame, classes: list[str]) -> dict[str, int]:
    """In how many clips each class occurs."""
    counts = dict.fromkeys(classes, 0)
    for label, seconds in zip(frame["label"], _seconds(frame), strict=True):
        for name in seconds or {label}:
            if name in counts:
                counts[name] += 1
    return counts


def seconds_of_classes(frame: pd.DataFrame, classes: list[str]) -> dict[str, float]:
    """How many seconds each class lasts in all clips together; nothing where clips have one class as a whole."""
    total = dict.fromkeys(classes, 0.0)
    found = _seconds(frame)
    for seconds in found:
        for name, length in seconds.items():
            total[name] += length
    return total if any(found) else {}


def extremes(frame: pd.DataFrame) -> dict[str, float]:
    """clips, min, mean and max of the values (of each clip's mean over time); empty where there are none."""
    numbers = values(frame)
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return {}
    return {"clips": len(known), "min": float(known.min()), "mean": float(known.mean()), "max": float(known.max())}


def _seconds(frame: pd.DataFrame) -> list[dict[str, float]]:
    """Per row how long each class lasts; empty where it has no segments."""
    texts = target_texts(frame)
    if not any(texts):
        return [{}] * len(frame)
    return [class_seconds(text, float(length)) for text, length in zip(texts, frame["duration"], strict=True)]
