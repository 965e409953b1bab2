"""Targets as the catalog keeps them: JSON text, which Parquet and CSV hold alike; empty for a class per clip.

{"segments": [[0, 1.5, "left"], [1.5, null, "up"]]}    null: to the end
{"value": 3.5}
{"curve": [[0, 0.25], [0.5, 0.4]]}                     [seconds, value]
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.targets import UNLABELLED, Curve, Segments, Target

if TYPE_CHECKING:  # it takes as long to import as a dozen clips to classify
    import pandas as pd

Segment = tuple[float, float | None, str]
"""Start and end in seconds after the file's first frame, None: its end; and the class."""


def segments_text(segments: Sequence[Segment]) -> str:
    """Segments in the order of their starts."""
    return json.dumps({"segments": segments}, ensure_ascii=False)


def value_text(value: float) -> str:
    """One finite number."""
    return json.dumps({"value": value})


def curve_text(points: Sequence[tuple[float, float]]) -> str:
    """(seconds, value) in the order of their times."""
    return json.dumps({"curve": points})


def read_target(text: str, label: str, numbers: Mapping[str, int]) -> Target:
    """The target of a catalog's row.

    Args:
        text: its column `target`.
        label: its column `label`.
        numbers: {class name: number}; a class outside it becomes -1.
    """
    if not text:
        return numbers.get(label, UNLABELLED)
    kept = json.loads(text)
    if "value" in kept:
        return float(kept["value"])
    if "curve" in kept:
        times, values = np.array(kept["curve"], dtype=np.float64).T
        return Curve(times, values)
    starts, ends, names = zip(*kept["segments"], strict=True)
    return Segments(
        np.array(starts, dtype=np.float64),
        np.array([math.inf if end is None else end for end in ends], dtype=np.float64),
        np.array([numbers.get(name, UNLABELLED) for name in names], dtype=np.int64),
    )


def class_seconds(text: str, duration: float) -> dict[str, float]:
    """How long each class of a text with segments lasts in a file of this duration; those that last at all.

    Other texts have no classes over time: empty.
    """
    found: dict[str, float] = {}
    for start, end, name in json.loads(text).get("segments", ()) if text else ():
        lasting = min(duration, math.inf if end is None else end) - start
        if lasting > 0:
            found[name] = found.get(name, 0.0) + lasting
    return found


def commonest(text: str, duration: float) -> str:
    """The class that lasts longest, of two the first by name; "" where there are none."""
    seconds = class_seconds(text, duration)
    return min(seconds, key=lambda name: (-seconds[name], name), default="")


def mean_value(text: str) -> float:
    """The value, or the mean of a curve's values; NaN where the text has neither."""
    kept = json.loads(text) if text else {}
    if "curve" in kept:
        return float(np.mean([value for _, value in kept["curve"]]))
    return float(kept.get("value", math.nan))


def latest(text: str) -> float:
    """The latest moment in seconds that a text speaks of; of a segment without an end its start; 0 for others."""
    kept = json.loads(text) if text else {}
    moments = [start if end is None else end for start, end, _ in kept.get("segments", ())]
    return max([*moments, *(time for time, _ in kept.get("curve", ()))], default=0.0)


def target_texts(frame: pd.DataFrame) -> list[str]:
    """The column `target` of a catalog; empty texts where it is absent, each clip having a class."""
    return [str(text) for text in frame["target"]] if "target" in frame else [""] * len(frame)


def targets(frame: pd.DataFrame) -> list[str]:
    """Per row all that a clip is to be taken for, as text: its target, or its label where that is all."""
    return [text or str(label) for text, label in zip(target_texts(frame), frame["label"], strict=True)]
