"""Scoring: let a model answer to the clips of a catalog, and compare with what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.clip_file import ClipFile
from pipeline.data.splits import own_names
from pipeline.data.strata import class_names
from pipeline.data.targets import target_at
from pipeline.errors import DataError, Reason
from pipeline.report.frame_metrics import evaluate_frames
from pipeline.report.metrics import evaluate_predictions
from pipeline.report.number_metrics import evaluate_numbers
from pipeline.report.tracks import Track
from pipeline.stages.ingest import clip_files, clip_names, failures
from pipeline.stages.predict import Prediction, Predictor
from pipeline.stages.shared_scoring import predict_all


@dataclass(frozen=True)
class Scored:
    """What scoring came to.

    Attributes:
        metrics: of `evaluate_predictions`, `evaluate_frames` or `evaluate_numbers`, by task.
        predictions: of each readable row, in order.
        tracks: what was true and what was predicted of each clip that was scored, in order.
        groups: the unit of each of these.
        files: the file of each of these.
        rows: their rows of the catalog.
    """

    metrics: dict[str, Any]
    predictions: list[Prediction]
    tracks: list[Track]
    groups: list[str]
    files: list[ClipFile] = field(default_factory=list)
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def answers(self) -> list[Prediction]:
        """The predictions without an error: those of the tracks."""
        return [prediction for prediction in self.predictions if prediction.error is None]


def score(
    predictor: Predictor, table: pd.DataFrame, workers: int = -1, vanished: Sequence[str] = (), shuffle: bool = False
) -> Scored:
    """Let the model answer to the rows of a catalog and compare with their targets.

    Every row counts: one that cannot be read is named under `failed` and lowers the coverage.

    Args:
        predictor: the model.
        table: rows of an ingested catalog (path, label, unit, status, times, ...), failed files included.
        workers: decoding processes.
        vanished: clips that should be scored and are not in the table any more; they lower the coverage too.
        shuffle: let the model see each clip's moments in random order.

    Raises:
        DataError: a label that the model does not know, or nothing that can be scored.
    """
    files = readable_files(predictor, table)
    return compare(predictor, table, files, predict_all(predictor, files, workers, shuffle), vanished)


def readable_files(predictor: Predictor, table: pd.DataFrame) -> list[ClipFile]:
    """The clips of a catalog that can be read, in its order.

    Raises:
        DataError: a label that the model does not know.
    """
    _check_classes(class_names(table), predictor.classes)
    return clip_files(table[table["status"] == "ok"], predictor.classes)


def compare(
    predictor: Predictor,
    table: pd.DataFrame,
    files: Sequence[ClipFile],
    predictions: Sequence[Prediction],
    vanished: Sequence[str] = (),
) -> Scored:
    """`score` where the predictions of the readable rows are there already, one for each of `files`, in order."""
    readable = table[table["status"] == "ok"]
    names = clip_names(readable)
    lost = [
        {"path": name, "reason": str(p.error.reason)}
        for name, p in zip(names, predictions, strict=True)
        if p.error is not None
    ]
    scored = [i for i, prediction in enumerate(predictions) if prediction.error is None]
    tracks = [_track(names[i], files[i], predictions[i]) for i in scored]
    units = readable["unit"].tolist()
    groups = [str(units[i]) for i in scored]
    counted = {
        "expected": len(table) + len(vanished),
        "failed": failures(table[table["status"] != "ok"])
        + lost
        + [{"path": name, "reason": str(Reason.NOT_FOUND)} for name in vanished],
    }
    mean = float(predictor.model.target_mean) if predictor.model.numeric else 0.0
    metrics = _metrics(predictor.task, predictor.classes, mean, tracks, predictions, groups, counted)
    return Scored(metrics, [*predictions], tracks, groups, [files[i] for i in scored], readable.iloc[scored])


def pool(parts: Sequence[Scored], classes: list[str]) -> Scored:
    """What several models of one task came to, each on clips of its own, as one: the same metrics over all clips.

    Numbers are compared with always answering one mean: that of the models' training means.
    """
    tracks = [track for part in parts for track in part.tracks]
    predictions = [prediction for part in parts for prediction in part.predictions]
    groups = [group for part in parts for group in part.groups]
    counted = {
        "expected": sum(part.metrics["expected"] for part in parts),
        "failed": [item for part in parts for item in part.metrics["failed"]],
    }
    weights = [part.metrics["n"] for part in parts]
    means = [part.metrics.get("baseline", {}).get("value", 0.0) for part in parts]
    mean = float(np.average(means, weights=weights))
    task = parts[0].metrics["task"]
    return Scored(_metrics(task, classes, mean, tracks, predictions, groups, counted), predictions, tracks, groups)


def _track(name: str, file: ClipFile, prediction: Prediction) -> Track:
    """What was true at the moments that the model looked at, and what it said."""
    assert prediction.times is not None
    true = np.atleast_1d(np.asarray(target_at(file.target, prediction.times)))
    answer = prediction.values if prediction.probabilities is None else prediction.probabilities.argmax(axis=-1)
    assert answer is not None
    return Track(name, prediction.times, true, np.atleast_1d(answer), prediction.duration)


def _metrics(
    task: Any,
    classes: list[str],
    mean: float,
    tracks: Sequence[Track],
    predictions: Sequence[Prediction],
    groups: Sequence[str],
    counted: dict[str, Any],
) -> dict[str, Any]:
    """The numbers of a task; `tracks` and `groups` are those of the predictions without an error."""
    shared = {"paths": [track.path for track in tracks], "groups": groups, **counted}
    true = [track.true for track in tracks]
    if task in ("regression", "frame_regression"):
        answers = [track.predicted for track in tracks]
        return evaluate_numbers(task, targets=true, values=answers, mean=mean, **shared)
    probabilities = [p.probabilities for p in predictions if p.probabilities is not None]
    if task == "frame_label":
        return evaluate_frames(labels=true, probabilities=probabilities, classes=classes, **shared)
    return evaluate_predictions(
        labels=np.array([labels[0] for labels in true], dtype=np.int64),
        probabilities=np.array(probabilities).reshape(len(true), len(classes)),
        classes=classes,
        **shared,
    )


def identities(table: pd.DataFrame) -> pd.Series[str]:
    """What a clip is recognised by: the start of its content's digest; the place of one that cannot be read."""
    names = "path:" + pd.Series(own_names(table), index=table.index, dtype="str")
    digests = table["clip"].fillna("").str.slice(0, 24)
    return digests.where(digests != "", names)


def learned(split: dict[str, Any]) -> set[str]:
    """Content identities of the clips that a model, and those it started from, learned from or were chosen by.

    Args:
        split: of a checkpoint's card.
    """
    before = split.get("before", {})
    return {name for part in ("train", "val") for name in (*split.get(part, ()), *before.get(part, ()))}


def _check_classes(found: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in found if name not in set(known)]
    if unknown:
        raise DataError(
            f"the data has classes that the model does not know: {', '.join(unknown)}; "
            f"data: {', '.join(found)}; model: {', '.join(known)}"
        )
