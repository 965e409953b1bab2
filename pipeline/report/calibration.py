"""Do the probabilities mean what they say: temperature, reliability, expected calibration error.

Temperature scaling (Guo et al. 2017) divides the logits by one number: the order of the classes stays, so no label
changes. A log-probability is as good as a logit here, since the softmax takes away what the classes have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.report.bootstrap import Floats, Ints, entry, group_clips, intervals, resampled

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures beyond these only say that the model is sure of everything, or of nothing."""
BINS = 15
"""Of equal width, as Guo et al. have them."""
TINY = np.finfo(np.float64).tiny


def rescaled(probabilities: Floats, temperature: float) -> Floats:
    """Probabilities (..., K) as they are at another temperature: softmax(log(p) / temperature)."""
    logits = np.log(np.maximum(probabilities, TINY)) / temperature
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scaled: Floats = scores / scores.sum(axis=-1, keepdims=True)
    return scaled


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature with the lowest log loss, within `COLDEST` and `HOTTEST`.

    Where every clip is right, the log loss falls for ever as the model is made surer: a handful of clips would make it
    certain. So each target is (n + 1) / (n + 2) for the true class instead of 1, the rest shared by the others, as
    Platt (1999) does: what n right answers of n let one believe.

    Args:
        logits: (N, K), or log-probabilities, N >= 1, K >= 2.
        labels: (N,) integers in [0, K).
    """
    n, k = logits.shape
    targets = np.full((n, k), 1 / (n + 2) / max(k - 1, 1))
    targets[np.arange(n), labels] = (n + 1) / (n + 2)
    wanted = float((targets * logits).sum(axis=1).mean())
    cold, hot = np.log(COLDEST), np.log(HOTTEST)
    for _ in range(60):  # the slope grows with 1 / temperature: the loss is convex in it (log-sum-exp minus a line)
        middle = (cold + hot) / 2
        scaled = logits / np.exp(middle)
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        slope = float((shares * logits).sum(axis=1).mean()) - wanted
        cold, hot = (middle, hot) if slope > 0 else (cold, middle)
    return float(np.exp((cold + hot) / 2))


def calibration(probabilities: Floats, labels: Ints, groups: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """How far the confidence in the answers is from how often they are right.

    Args:
        probabilities: (N, K), rows summing to 1.
        labels: (N,) integers in [0, K).
        groups: N names of what is drawn together in the bootstrap.
        seed: of the resampling.

    Returns:
        `ece`, the expected calibration error, with `_low` and `_high` (95%, over groups);
        `ece_by_chance`, what it would be on average if every confidence were the chance of being right;
        `log_loss` in nats; `confidence`, the mean;
        `bins`, those that hold answers: `{from, to, answers, confidence, accuracy}`.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    of = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    columns = np.zeros((len(labels), 3, BINS))
    columns[np.arange(len(labels)), :, of] = np.stack([np.ones(len(labels)), confidence, right], axis=1)
    grouped = group_clips(groups)
    sums = grouped.sums(columns.reshape(len(labels), -1))
    point = _error(sums.sum(axis=0))
    samples = resampled(sums, _error, 1000, seed)
    low, high = intervals(point, samples, np.array([float(grouped.count)]), shares=False)
    own = probabilities[np.arange(len(labels)), labels]
    count, sure, hits = sums.sum(axis=0).reshape(3, BINS)
    return {
        **entry("ece", point[0], low[0], high[0]),
        "ece_by_chance": _by_chance(confidence, of, seed),
        "log_loss": float(-np.log(np.maximum(own, TINY)).mean()),
        "confidence": float(confidence.mean()),
        "bins": [
            {
                "from": b / BINS,
                "to": (b + 1) / BINS,
                "answers": int(count[b]),
                "confidence": float(sure[b] / count[b]),
                "accuracy": float(hits[b] / count[b]),
            }
            for b in range(BINS)
            if count[b]
        ],
    }


def _by_chance(confidence: Floats, of: Ints, seed: int, draws: int = 100) -> float:
    """Mean calibration error of answers that are right with a chance of their confidence; `of` is each one's bin."""
    rng = np.random.default_rng(seed)
    sure = np.bincount(of, confidence, minlength=BINS)
    hits = [np.bincount(of, rng.random(len(of)) < confidence, minlength=BINS) for _ in range(draws)]
    return float(np.abs(sure - np.array(hits)).sum(axis=1).mean() / len(of))


def _error(sums: Floats) -> Floats:
    """(..., 1) expected calibration errors of sums (..., 3 * BINS): answers, confidence and right ones per bin."""
    count, sure, hits = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, BINS), -2, 0)
    error: Floats = np.abs(sure - hits).sum(axis=-1, keepdims=True) / count.sum(axis=-1, keepdims=True)
    return error
