from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.errors import DataError
from pipeline.report.bootstrap import format_interval
from pipeline.report.metrics import evaluate_predictions


def evaluate(
    labels: np.ndarray, probabilities: np.ndarray, groups: list[str] | None = None, **options: Any
) -> dict[str, Any]:
    n, k = probabilities.shape
    return evaluate_predictions(
        [f"{index}.mp4" for index in range(n)],
        labels,
        probabilities,
        [f"class {index}" for index in range(k)],
        groups or [str(index) for index in range(n)],
        n,
        [],
        **options,
    )


def one_hot(predicted: np.ndarray, k: int) -> np.ndarray:
    return np.eye(k)[predicted]


def clustered(
    rng: np.random.Generator, groups: int, clips: int, spread: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels and predictions whose success varies by group, with a true accuracy of 0.7."""
    rate = np.clip(0.7 + spread * rng.choice([-1, 1], groups), 0, 1)
    right = rng.random((groups, clips)) < rate[:, None]
    labels = rng.integers(0, 2, (groups, clips))
    predicted = np.where(right, labels, 1 - labels)
    names = np.repeat(np.arange(groups), clips).astype(str).tolist()
    return labels.ravel(), one_hot(predicted.ravel(), 2), names


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(2, 9),
    sharpness=st.floats(0, 8),
    seed=st.integers(0, 2**31),
)
def test_point_values_equal_scikit_learn(n: int, k: int, sharpness: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += sharpness * rng.random(n)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = evaluate(labels, probabilities, resamples=20)
    predicted = probabilities.argmax(axis=1)
    every = list(range(k))
    assert found["top1"] == pytest.approx(reference.accuracy_score(labels, predicted))
    if k > 5:
        top5 = reference.top_k_accuracy_score(labels, probabilities, k=5, labels=every)
        assert found["top5"] == pytest.approx(top5)
    else:
        assert found["top5"] == 1
    macro = reference.f1_score(labels, predicted, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(macro)
    assert found["log_loss"] == pytest.approx(reference.log_loss(labels, probabilities, labels=every))
    assert found["confusion"] == reference.confusion_matrix(labels, predicted, labels=every).tolist()
    scores = reference.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    occurs = set(labels) | set(predicted)
    for index, row in enumerate(found["per_class"]):
        assert row["support"] == scores[3][index]
        for name, values in zip(("precision", "recall", "f1"), scores[:3], strict=True):
            if index in occurs:
                assert row[name] == pytest.approx(values[index])
            else:
                assert row[name] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 40), k=st.integers(2, 6), groups=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_intervals_are_in_order_and_in_range(n: int, k: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = rng.integers(0, groups, n).astype(str).tolist()
    found = evaluate(rng.integers(0, k, n), rng.dirichlet(np.ones(k), n), names, resamples=200)
    for row, keys in [(found, ("top1", "top5", "macro_f1"))] + [
        (row, ("precision", "recall", "f1")) for row in found["per_class"]
    ]:
        for key in keys:
            low, high = row[f"{key}_low"], row[f"{key}_high"]
            assert (low is None) == (high is None)
            if low is not None:
                assert 0 <= low <= high <= 1
    assert found["groups"] == len(set(names))
    assert (found["note"] is None) == (found["groups"] > 1)
    assert found["top1_low"] is not None


@pytest.mark.parametrize("spread", [0.0, 0.25])
def test_the_interval_holds_the_true_accuracy_about_95_times_in_100(spread: float) -> None:
    rng = np.random.default_rng(7)
    inside = 0
    for trial in range(400):
        labels, probabilities, names = clustered(rng, groups=60, clips=5, spread=spread)
        found = evaluate(labels, probabilities, names, resamples=400, seed=trial)
        inside += found["top1_low"] <= 0.7 <= found["top1_high"]
    # 0.95 with a standard error of 0.011; the percentile bootstrap itself is a little narrow at 60 groups.
    assert 0.90 <= inside / 400 <= 0.985


def test_clips_of_one_source_counted_as_independent_would_claim_too_much() -> None:
    rng = np.random.default_rng(3)
    inside = {"by group": 0, "by clip": 0}
    for trial in range(200):
        labels, probabilities, names = clustered(rng, groups=40, clips=12, spread=0.29)
        for how, groups in (("by group", names), ("by clip", None)):
            found = evaluate(labels, probabilities, groups, resamples=200, seed=trial)
            inside[how] += found["top1_low"] <= 0.7 <= found["top1_high"]
    assert inside["by group"] >= 0.88 * 200
    assert inside["by clip"] <= 0.80 * 200


def test_macro_f1_interval_matches_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 4, 120)
    predicted = np.where(rng.random(120) < 0.7, labels, rng.integers(0, 4, 120))
    groups = rng.integers(0, 30, 120)
    found = evaluate(labels, one_hot(predicted, 4), groups.astype(str).tolist(), resamples=2000)
    samples = []
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for _ in range(600):
        drawn = np.concatenate([members[index] for index in rng.integers(0, len(members), len(members))])
        samples.append(reference.f1_score(labels[drawn], predicted[drawn], average="macro"))
    low, high = np.quantile(samples, [0.025, 0.975])
    assert found["macro_f1_low"] == pytest.approx(low, abs=0.02)
    assert found["macro_f1_high"] == pytest.approx(high, abs=0.02)


def test_a_perfect_score_does_not_claim_certainty() -> None:
    labels = np.arange(40) % 2
    found = evaluate(labels, one_hot(labels, 2))
    assert found["top1"] == found["top1_high"] == 1
    assert found["top1_low"] == pytest.approx(0.025 ** (1 / 40))
    assert found["per_class"][0]["recall_low"] == pytest.approx(0.025 ** (1 / 20))
    wrong = evaluate(labels, one_hot(1 - labels, 2))
    assert wrong["top1"] == wrong["top1_low"] == 0
    assert wrong["top1_high"] == pytest.approx(1 - 0.025 ** (1 / 40))


def test_one_group_has_an_interval_over_clips_and_says_so() -> None:
    labels, guesses = np.array([0, 1, 1]), one_hot(np.array([0, 1, 0]), 2)
    found = evaluate(labels, guesses, ["a", "a", "a"])
    assert found["top1"] == pytest.approx(2 / 3)
    assert found["groups"] == 1
    assert "one group" in found["note"]
    alone = evaluate(labels, guesses, ["a", "b", "c"])
    assert [found["top1_low"], found["top1_high"]] == [alone["top1_low"], alone["top1_high"]]
    single = evaluate(labels[:1], guesses[:1], ["a"])
    assert single["top1_low"] is None


def test_ties_at_the_fifth_place_agree_with_the_first() -> None:
    labels = np.array([0, 6])
    found = evaluate(labels, np.full((2, 7), 1 / 7))
    assert found["top1"] == 0.5
    assert found["top5"] == 0.5


def test_the_same_seed_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), 50)
    first, again, other = (evaluate(labels, probabilities, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["macro_f1_low"] != other["macro_f1_low"]


def test_majority_is_what_always_answering_the_commonest_class_scores() -> None:
    found = evaluate(np.array([2, 2, 2, 0]), one_hot(np.array([0, 0, 0, 0]), 3))
    assert found["majority"] == {"class": "class 2", "rate": 0.75}


def test_a_thousand_resamples_of_ten_thousand_clips_are_quick() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 101, 10_000), rng.dirichlet(np.ones(101), 10_000)
    begin = time.perf_counter()
    evaluate(labels, probabilities)
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        ([0, 2], [[1, 0], [0, 1]], "from 0 to 1"),
        ([0.0, 1.0], [[1, 0], [0, 1]], "integers"),
        ([0, 1], [[3.0, -2.0], [0, 1]], "not negative"),
        ([0, 1], [[3.0, 2.0], [0, 1]], "logits"),
        ([0, 1], [[np.nan, 1], [0, 1]], "finite"),
        ([0], [[1, 0], [0, 1]], "labels"),
    ],
)
def test_numbers_that_cannot_be_right_are_refused(labels: Any, probabilities: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate(np.array(labels), np.array(probabilities, dtype=float))


def test_nothing_scored_is_an_error_that_names_a_file() -> None:
    failed = [{"path": "a.mp4", "reason": "empty"}]
    with pytest.raises(DataError, match=r"none of 1 clips.*a\.mp4: empty"):
        evaluate_predictions([], np.zeros(0, int), np.zeros((0, 2)), ["x", "y"], [], 1, failed)


def test_format_interval() -> None:
    assert format_interval(0.8734, 0.8149, 0.926) == "0.873 [0.81, 0.93]"
    assert format_interval(0.5, None, None) == "0.500"
    assert format_interval(None, None, None) == "-"
