"""Predictions by several processes: each clip goes through one of them, and all get all answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from pipeline.data.clip_file import ClipFile
from pipeline.errors import Reason, VideoError
from pipeline.stages.distributed import gather, mine, place
from pipeline.stages.predict import Prediction, Predictor
from pipeline.stages.progress import bar

FIELDS = [field.name for field in fields(Prediction)]
ARRAYS = ("probabilities", "values", "times")


def predict_all(predictor: Predictor, files: Sequence[ClipFile], workers: int, shuffle: bool) -> list[Prediction]:
    """`Predictor.predict` for all files, in their order: the same bits however many processes divide them."""
    own = files[mine()]
    found = []
    with bar("scoring", len(own)) as advance:
        for prediction in predictor.predict(own, workers, shuffle=shuffle):
            found.append(prediction)
            advance(1)
    if place().world == 1:
        return found
    parts = [iter(part) for part in gather([_plain(prediction) for prediction in found])]
    return [_prediction(next(parts[index % len(parts)])) for index in range(len(files))]


def _plain(prediction: Prediction) -> dict[str, Any]:
    """As JSON holds it, every number to the bit."""
    plain = {name: getattr(prediction, name) for name in FIELDS}
    error = prediction.error
    plain["error"] = None if error is None else [error.path, str(error.reason), error.detail]
    for name in ARRAYS:
        plain[name] = None if plain[name] is None else plain[name].tolist()
    return plain


def _prediction(plain: dict[str, Any]) -> Prediction:
    """The inverse of `_plain`."""
    error = plain["error"] and VideoError(plain["error"][0], Reason(plain["error"][1]), plain["error"][2])
    arrays = {name: None if plain[name] is None else np.array(plain[name], dtype=np.float64) for name in ARRAYS}
    return Prediction(**plain | arrays | {"error": error})
