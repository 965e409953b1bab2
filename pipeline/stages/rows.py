"""A prediction as a row of a table of results."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.addresses import shown
from pipeline.report.segments import timed_segments
from pipeline.stages.predict import Prediction, Predictor


def result_row(prediction: Prediction, predictor: Predictor, top_k: int = 5) -> dict[str, Any]:
    """One row, with the columns of the predictor's task; a file that could not be read has its reason as status.

    Of an address, the path leaves out what must not be read by others.
    """
    path = shown(prediction.path)
    if prediction.error is not None:
        reason, detail = str(prediction.error.reason), prediction.error.detail
        return {"path": path, "status": reason, "note": detail, "model": predictor.digest}
    return {
        "path": path,
        "status": "ok",
        **ANSWERS[predictor.task](prediction, predictor.classes, top_k),
        "frames": prediction.frames,
        "duration": prediction.duration,
        "note": prediction.note,
        "model": predictor.digest,
        "seconds": prediction.seconds,
    }


def _label(prediction: Prediction, classes: list[str], top_k: int) -> dict[str, Any]:
    p = prediction.probabilities
    assert p is not None
    order = (-p).argsort(kind="stable")
    runner_up = float(p[order[1]]) if len(order) > 1 else 0.0
    return {
        "label": classes[order[0]],
        "probability": float(p[order[0]]),
        "top_k": [{"label": classes[i], "probability": float(p[i])} for i in order[:top_k]],
        "margin": float(p[order[0]]) - runner_up,
    }


def _segments(prediction: Prediction, classes: list[str], _: int) -> dict[str, Any]:
    """The segments, each with the mean probability of its label over its moments; the label that lasts longest."""
    p, times = prediction.probabilities, prediction.times
    assert p is not None and times is not None
    segments, lasting = [], np.zeros(len(classes))
    for label, start, end, moments in timed_segments(p.argmax(axis=1), times, prediction.duration):
        probability = float(p[moments, label].mean())
        segments.append({"start": start, "end": end, "label": classes[label], "probability": probability})
        lasting[label] += end - start
    longest = lasting.argmax() if lasting.any() else p[0].argmax()  # a still image lasts no time at all
    return {"label": classes[int(longest)], "segments": segments}


def _value(prediction: Prediction, _: list[str], __: int) -> dict[str, Any]:
    assert prediction.values is not None
    return {"value": float(prediction.values[0])}


def _values(prediction: Prediction, _: list[str], __: int) -> dict[str, Any]:
    values, times = prediction.values, prediction.times
    assert values is not None and times is not None
    return {"values": [{"time": float(t), "value": float(x)} for t, x in zip(times, values, strict=True)]}


ANSWERS = {"label": _label, "frame_label": _segments, "regression": _value, "frame_regression": _values}
"""What a model of each task has to say about one clip."""
