"""Evaluate: honest numbers on clips that were used for no choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.config import DataConfig
from pipeline.data.catalog import Policy
from pipeline.data.clip_file import ClipFile
from pipeline.data.splits import own_names
from pipeline.data.strata import class_names
from pipeline.data.targets import target_at
from pipeline.errors import DataError, Reason
from pipeline.model import checkpoint
from pipeline.report.frame_metrics import evaluate_frames
from pipeline.report.metrics import evaluate_predictions
from pipeline.report.number_metrics import evaluate_numbers
from pipeline.report.tracks import Track
from pipeline.report.write import write_report
from pipeline.stages.distributed import is_first
from pipeline.stages.ingest import clip_files, clip_names, failures, ingest
from pipeline.stages.predict import Prediction, Predictor
from pipeline.stages.progress import say
from pipeline.stages.shared_scoring import predict_all

Which = Literal["test", "val", "train", "all"]


@dataclass(frozen=True)
class Scored:
    """What scoring came to.

    Attributes:
        metrics: of `evaluate_predictions`, `evaluate_frames` or `evaluate_numbers`, by task.
        predictions: of each readable row, in order.
        tracks: what was true and what was predicted of each clip that was scored, in order.
        groups: the unit of each of these.
    """

    metrics: dict[str, Any]
    predictions: list[Prediction]
    tracks: list[Track]
    groups: list[str]


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
    _check_classes(class_names(table), predictor.classes)
    readable = table[table["status"] == "ok"]
    files = clip_files(readable, predictor.classes)
    predictions = predict_all(predictor, files, workers, shuffle)
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
    return Scored(metrics, predictions, tracks, groups)


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


def evaluate(
    predictor: Predictor,
    data: str | Path | DataConfig | None,
    split: Which = "test",
    out: str | Path | None = None,
    workers: int = -1,
    shuffle: bool = False,
) -> dict[str, Any]:
    """Score a checkpoint on a data set.

    Clips are recognised by their content, wherever they lie now: the checkpoint knows which it was trained on. In the
    data it was trained on, its own test split is scored; in any other, all clips that it did not learn from.

    Args:
        predictor: the model.
        data: folder or list, or a whole description of where the clips are; None: the data it was trained on.
        split: which clips of the checkpoint's own split; `all` includes those it learned from, and says so.
        out: folder for metrics.json, tables and pictures.
        workers: decoding processes.
        shuffle: let the model see each clip's moments in random order. What it loses is what it had from their order;
            an order that is drawn from the clip's content, so that every model sees the same.

    Returns:
        The metrics, with `split`, `data`, `model`, `shuffled` and `seen`: how many clips were kept out because the
        model learned from them.

    Raises:
        DataError: nothing to score.
    """
    whole = checkpoint.config_of(predictor.card)
    config, policy = whole.data, Policy(whole.limits, whole.video.partial)
    given = data if isinstance(data, DataConfig) or data is None else DataConfig(root=str(data))
    home = given is None or os.path.realpath(given.root or "") == os.path.realpath(config.root or "")
    if given is not None and not home:  # other data has its own layout and names
        config = replace(given, background=given.background or config.background)
    table = ingest(config, split=False, policy=policy, task=whole.task).table
    chosen, seen = select(table, predictor.card.split, split, home)
    if seen:
        say(f"{seen} clips are not scored: the model learned from them (--split all scores them too)")
    if split == "test" and home and (more := _strangers(table, predictor.card.split)):
        say(f"{more} clips came after the training and are in no split; they are not scored (--split all)")
    if chosen.empty:
        raise DataError(f"{config.root}: no clip of the {split} split is there")
    own = predictor.card.split.get(split, []) if home else []
    vanished = sorted(set(own) - set(identities(table)))
    scored = score(predictor, chosen, workers, vanished, shuffle)
    metrics = scored.metrics | {"split": split, "data": str(config.root), "model": predictor.digest}
    metrics |= {"shuffled": shuffle, "seen": seen}
    if out is not None and is_first():
        write_report(metrics, scored.tracks, Path(out))
    return metrics


def select(table: pd.DataFrame, own: dict[str, Any], split: Which, home: bool) -> tuple[pd.DataFrame, int]:
    """The rows to score, and how many were kept out because the model has seen them.

    Args:
        table: a catalog.
        own: the checkpoint's split: content identities of its train, val and test clips.
        split: see `evaluate`.
        home: this is the data the model was trained on, so its own split says all.
    """
    if split == "all":
        return table, 0
    identity = identities(table)
    if home or split != "test":
        return table[identity.isin(set(own.get(split, [])))], 0
    known = identity.isin(set(own.get("train", [])) | set(own.get("val", [])))
    return table[~known], int(known.sum())


def _strangers(table: pd.DataFrame, own: dict[str, Any]) -> int:
    """How many clips are in none of the model's splits."""
    known = {name for split in ("train", "val", "test") for name in own.get(split, [])}
    return int((~identities(table).isin(known)).sum())


def identities(table: pd.DataFrame) -> pd.Series[str]:
    """What a clip is recognised by: the start of its content's digest; the place of one that cannot be read."""
    names = "path:" + pd.Series(own_names(table), index=table.index, dtype="str")
    digests = table["clip"].fillna("").str.slice(0, 24)
    return digests.where(digests != "", names)


def _check_classes(found: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in found if name not in set(known)]
    if unknown:
        raise DataError(
            f"the data has classes that the model does not know: {', '.join(unknown)}; "
            f"data: {', '.join(found)}; model: {', '.join(known)}"
        )
