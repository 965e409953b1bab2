"""Examine: what the scores of an evaluation do not say: calibration, when to abstain, where it goes wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report.breakdown import breakdown
from pipeline.report.calibration import calibration, rescaled
from pipeline.report.selective import risk_coverage, selected, threshold_for
from pipeline.stages.predict import Predictor
from pipeline.stages.scoring import Scored

MISTAKES = 12
"""Most confident mistakes that a report shows."""


PRECISION = 0.95
"""Share of right answers that is wished for where nobody says otherwise."""


def examine(
    predictor: Predictor, scored: Scored, precision: float = PRECISION, one_view: bool = True
) -> dict[str, Any]:
    """More about an evaluation, beside its metrics.

    Args:
        predictor: the model.
        scored: its answers.
        precision: share of right answers that is wished for among those that are given.
        one_view: each answer is that of one view; the temperature cannot be taken out of a mean of several.

    Returns:
        `by`: the score by clip length, frame size and source. Where the task has classes also
        `calibration`: `temperature`, `fitted_on` (validation answers), and `before` (None for several views) and
        `after` scaling as of `report.calibration.calibration`;
        `selection`: `precision`, `threshold` (fitted on validation; None where none reaches it or there was no
        validation), what it `selected` here, and `curve` and `aurc` of `report.selective.risk_coverage`.
        Of a class per clip `mistakes`: the most confident wrong answers, `{clip, path, true, predicted, confidence}`,
        with the clip's place among those scored.
    """
    found: dict[str, Any] = {"by": breakdown(scored.tracks, scored.rows)}
    if predictor.model.numeric:
        return found
    probabilities, labels, groups = labelled_answers(scored)
    fitted = predictor.card.extra.get("calibration", {})
    temperature = predictor.temperature
    found["calibration"] = {
        "temperature": temperature,
        "fitted_on": fitted.get("answers", 0),
        "before": calibration(rescaled(probabilities, 1 / temperature), labels, groups) if one_view else None,
        "after": calibration(probabilities, labels, groups),
    }
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    threshold = threshold_for(fitted.get("thresholds", []), precision)
    found["selection"] = {
        "precision": precision,
        "threshold": threshold,
        "selected": None if threshold is None else selected(confidence, right, groups, threshold),
        **risk_coverage(confidence, right),
    }
    if predictor.task == "label":
        found["mistakes"] = _mistakes(scored, predictor.classes, confidence)
    return found


def labelled_answers(scored: Scored) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities float64 (N, K), labels int64 (N,) and groups of all answers that have a label: one per clip, or one
    per labelled moment.
    """
    given = [np.atleast_2d(one.probabilities) for one in scored.answers if one.probabilities is not None]
    true = [track.true for track in scored.tracks]
    groups = np.repeat(scored.groups, [len(labels) for labels in true])
    labels, probabilities = np.concatenate(true), np.concatenate(given)
    known = labels >= 0
    return probabilities[known], labels[known].astype(np.int64), groups[known].tolist()


def _mistakes(scored: Scored, classes: list[str], confidence: np.ndarray) -> list[dict[str, Any]]:
    wrong = [i for i, track in enumerate(scored.tracks) if track.true[0] != track.predicted[0]]
    wrong.sort(key=lambda i: (-confidence[i], i))
    return [
        {
            "clip": i,
            "path": scored.tracks[i].path,
            "true": classes[int(scored.tracks[i].true[0])],
            "predicted": classes[int(scored.tracks[i].predicted[0])],
            "confidence": float(confidence[i]),
        }
        for i in wrong[:MISTAKES]
    ]
