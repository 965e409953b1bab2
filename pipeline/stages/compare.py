"""Compare: two models on the same clips, clip by clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import DataConfig
from pipeline.data.catalog import Policy
from pipeline.errors import DataError
from pipeline.model import checkpoint
from pipeline.report.paired import difference, mcnemar, verdict
from pipeline.report.tasks import JUDGED
from pipeline.report.tracks import Track
from pipeline.stages.distributed import alone
from pipeline.stages.evaluate import Scored, identities, score
from pipeline.stages.evaluation import find_run
from pipeline.stages.ingest import clip_names, ingest
from pipeline.stages.predict import Prediction, Predictor
from pipeline.stages.progress import say
from pipeline.stages.readings import note_reading, reading_of
from pipeline.stages.scoring import learned


def compare(
    a: Predictor,
    b: Predictor,
    data: str | Path | DataConfig | None = None,
    names: tuple[str, str] = ("A", "B"),
    workers: int = -1,
    uri: str | None = None,
) -> dict[str, Any]:
    """Let two models answer to the same clips, of which neither saw any in its training.

    A clip that either model learned from, or was chosen by (its train and val splits), is left out, and counted: on it
    one of them would have an advantage. Clips are recognised by content. One that only one model can read counts for
    neither and is named. A look at clips of a model's own test split is noted like one of `evaluate`.

    Args:
        a, b: the models, of the same task.
        data: folder or list, or a whole description of where the clips are; None: the data that `a` was trained on.
        names: what the models are called.
        workers: decoding processes.
        uri: the store with the models' runs, where it is not the one they were trained with.

    Returns:
        `task`, `score` (its key, and `higher`: whether more is better); `a` and `b`, each `{name, model, value}`;
        `difference` (a minus b) with `_low` and `_high`, and `p` with `counts` `{both, only_a, only_b, neither}` where
        answers are right or wrong (see `report.paired`); `better`: a, b or undecided; `n` clips in `groups` sources;
        `left_out` `{a, b, both}`: clips in the training of one of them alone, or of both; `failed`; `note`;
        `differ`, a row for each clip on which they differ, the largest difference first.

    Raises:
        DataError: two tasks, classes that one of them does not know, or no clip that neither saw.
        DistributedError: several processes were started.
    """
    alone("compare")
    if a.task != b.task:
        raise DataError(f"{names[0]} has the task {a.task}, {names[1]} has {b.task}: there is nothing to compare")
    root, table = _catalog(a, data)
    chosen, left_out = unseen(table, a.card.split, b.card.split)
    if sum(left_out.values()):
        say(_left_out_text(left_out, names))
    if chosen.empty:
        raise DataError(
            f"{root}: one of the models learned from every clip there; name clips that neither saw, with --data or DATA"
        )
    scored = [score(model, chosen, workers) for model in (a, b)]
    for model, one, other in ((a, scored[0], names[1]), (b, scored[1], names[0])):
        _note(model, chosen, one, f"compare with {other}", uri)
    return _compared(a, b, names, chosen, scored) | {"data": root, "left_out": left_out}


def _note(model: Predictor, chosen: pd.DataFrame, scored: Scored, command: str, uri: str | None) -> None:
    """Clips of the test split that were looked at, noted beside the checkpoint and in the model's run."""
    tested = int(identities(chosen).isin(set(model.card.split.get("test", ()))).sum())
    if tested:
        reading = reading_of(model.card, scored.metrics, command, tested, model.digest)
        note_reading(reading, model.folder, find_run(model, "auto", uri))


def _catalog(a: Predictor, data: str | Path | DataConfig | None) -> tuple[str, pd.DataFrame]:
    """The clips to choose from, by the layout and the limits of the first model's own data."""
    whole = checkpoint.config_of(a.card)
    given = data if isinstance(data, DataConfig) or data is None else DataConfig(root=str(data))
    home = given is None or os.path.realpath(given.root or "") == os.path.realpath(whole.data.root or "")
    if given is None or home:
        config = whole.data
    else:  # other data has its own layout and names
        config = replace(given, background=given.background or whole.data.background)
    policy = Policy(whole.limits, whole.video.partial)
    return str(config.root), ingest(config, split=False, policy=policy, task=whole.task).table


def unseen(table: pd.DataFrame, a: dict[str, Any], b: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of a catalog that are in neither model's train and val splits, and how many are in whose.

    Args:
        table: a catalog.
        a, b: the splits of the checkpoints: content identities of their clips.
    """
    identity = identities(table)
    in_a, in_b = (identity.isin(learned(own)) for own in (a, b))
    counts = {"a": int((in_a & ~in_b).sum()), "b": int((in_b & ~in_a).sum()), "both": int((in_a & in_b).sum())}
    return table[~in_a & ~in_b], counts


def _left_out_text(left_out: dict[str, int], names: tuple[str, str]) -> str:
    who = {"a": f"{names[0]} alone", "b": f"{names[1]} alone", "both": "both"}
    parts = [f"{count} of {who[key]}" for key, count in left_out.items() if count]
    return f"{sum(left_out.values())} clips are left out, being in the training or validation: {', '.join(parts)}"


def _compared(
    a: Predictor, b: Predictor, names: tuple[str, str], chosen: pd.DataFrame, scored: Sequence[Scored]
) -> dict[str, Any]:
    """Everything that follows from the answers."""
    task = a.task
    readable = chosen[chosen["status"] == "ok"]
    paths, groups = clip_names(readable), [str(unit) for unit in readable["unit"]]
    answers = [_answers(one) for one in scored]
    pairs, failed = [], _failed(scored)
    for index in range(len(paths)):
        one, other = (found[index] for found in answers)
        if one is not None and other is not None:
            pairs.append((index, one, other))
    tracks = [[one[0] for _, one, _ in pairs], [other[0] for _, _, other in pairs]]
    values = [np.array([clip_score(task, track) for track in side]).reshape(-1, 2) for side in tracks]
    known = np.array([bool(x[1] and y[1]) for x, y in zip(*values, strict=True)], dtype=bool)
    if not known.any():
        raise DataError(f"no clip has both an answer of each model and a target: {len(failed)} clips failed")
    pairs = [pair for pair, keep in zip(pairs, known, strict=True) if keep]
    first, second = (value[known] for value in values)
    found = difference(first, second, [groups[pair[0]] for pair in pairs])
    counts = _counts(first[:, 0] > 0, second[:, 0] > 0) if task == "label" else None
    p = mcnemar(counts["only_a"], counts["only_b"]) if counts else None
    rows = [
        _row(task, paths[index], one, other, (a.classes, b.classes), (x, y))
        for (index, one, other), x, y in zip(pairs, first, second, strict=True)
    ]
    higher = JUDGED[task].share
    return {
        "task": task,
        "score": JUDGED[task].scores[0],
        "higher": higher,
        "a": {"name": names[0], "model": a.digest, "value": found.pop("a")},
        "b": {"name": names[1], "model": b.digest, "value": found.pop("b")},
        "n": len(pairs),
        **found,
        "counts": counts,
        "p": p,
        "better": verdict(found, p, higher),
        "failed": failed,
        "differ": sorted((row for row in rows if row is not None), key=lambda row: -abs(row["difference"])),
    }


def _answers(scored: Scored) -> list[tuple[Track, Prediction] | None]:
    """For each readable clip the track and the prediction; None where it could not be read after all."""
    tracks = iter(scored.tracks)
    return [None if one.error is not None else (next(tracks), one) for one in scored.predictions]


def _failed(scored: Sequence[Scored]) -> list[dict[str, str]]:
    """Every clip that a model could not read, once, with the reason."""
    found = {item["path"]: item for one in scored for item in one.metrics["failed"]}
    return list(found.values())


def clip_score(task: str, track: Track) -> tuple[float, float]:
    """What a clip adds to the first score of its task, and how many labels or numbers of it are compared."""
    if task.endswith("regression"):
        known = ~np.isnan(track.true)
        return float(np.abs(track.true[known] - track.predicted[known]).sum()), float(known.sum())
    known = track.true >= 0
    return float((track.true[known] == track.predicted[known]).sum()), float(known.sum())


def _counts(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, int]:
    pairs = {"both": a & b, "only_a": a & ~b, "only_b": b & ~a, "neither": ~a & ~b}
    return {name: int(which.sum()) for name, which in pairs.items()}


def _row(
    task: str,
    path: str,
    a: tuple[Track, Prediction],
    b: tuple[Track, Prediction],
    classes: tuple[list[str], list[str]],
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> dict[str, Any] | None:
    """What the models say of a clip on which they differ; None where they do not."""
    x, y = (float(one[0] / one[1]) for one in scores)
    if task != "label":
        row = {"path": path, "a": x, "b": y, "difference": x - y}
        return row if x != y else None
    told = [_told(answer[1], names) for answer, names in zip((a, b), classes, strict=True)]
    if told[0][0] == told[1][0]:
        return None
    return {
        "path": path,
        "true": classes[0][int(a[0].true[0])],
        "a": told[0][0],
        "b": told[1][0],
        "probability_a": told[0][1],
        "probability_b": told[1][1],
        "right": "a" if x > y else "b" if y > x else "neither",
        "difference": x - y,
    }


def _told(prediction: Prediction, classes: list[str]) -> tuple[str, float]:
    """The label and its probability."""
    assert prediction.probabilities is not None
    best = int(prediction.probabilities.argmax())
    return classes[best], float(prediction.probabilities[best])
