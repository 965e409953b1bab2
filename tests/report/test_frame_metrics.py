from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.errors import DataError
from pipeline.report.frame_metrics import SCORES, evaluate_frames

CLASSES = ["a", "b", "c"]


def track(text: str) -> np.ndarray:
    return np.array([".abc".index(c) - 1 for c in text])


def sure(text: str, certainty: float = 0.9) -> np.ndarray:
    return np.where(np.eye(3)[track(text)] > 0, certainty, (1 - certainty) / 2)


def evaluate(true: list[str], predicted: list[str], groups: list[str] | None = None, **options: Any) -> dict[str, Any]:
    n = len(true)
    return evaluate_frames(
        [f"{i}.mp4" for i in range(n)],
        [track(text) for text in true],
        [sure(text) for text in predicted],
        CLASSES,
        groups or [str(i) for i in range(n)],
        n,
        [],
        **options,
    )


def test_every_number_by_hand() -> None:
    found = evaluate(["aaaabbbb", "ccc."], ["aabbbbbb", "cccc"])
    assert found["task"] == "frame_label"
    assert found["frame_accuracy"] == pytest.approx(9 / 11)
    assert found["edit"] == 1
    assert found["f1_10"] == found["f1_25"] == found["f1_50"] == 1
    assert (found["n"], found["moments"], found["unlabelled"]) == (2, 11, 1)
    assert found["segments"] == {"true": 3, "predicted": 3}
    assert found["confusion"] == [[2, 2, 0], [0, 4, 0], [0, 0, 3]]
    assert found["majority"] == {"class": "a", "rate": pytest.approx(4 / 11)}
    a, b, c = found["per_class"]
    assert (a["precision"], a["recall"], a["f1"], a["support"]) == (1, 0.5, pytest.approx(2 / 3), 4)
    assert (b["precision"], b["recall"], c["f1"]) == (pytest.approx(2 / 3), 1, 1)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 1) / 3)
    assert found["log_loss"] == pytest.approx(-(9 * np.log(0.9) + 2 * np.log(0.05)) / 11)
    assert found["coverage"] == 1 and found["groups"] == 2 and found["note"] is None
    json.dumps(found, allow_nan=False)


def test_segment_f1_adds_up_its_counts_over_clips() -> None:
    # clip 1: both found; clip 2: one segment predicted in three pieces, the larger is half of it
    found = evaluate(["aaaabbbb", "aaaaaaaa"], ["aaaabbbb", "aaabaaaa"])
    assert found["f1_50"] == pytest.approx(2 * 3 / (2 * 3 + 2 + 0))
    assert found["edit"] == pytest.approx((1 + (1 - 2 / 3)) / 2)


def test_perfect_is_one_with_an_interval_that_claims_no_certainty() -> None:
    found = evaluate(["aabbcc", "ccbbaa", "abc..."], ["aabbcc", "ccbbaa", "abcaaa"])
    for name in SCORES:
        assert found[name] == found[f"{name}_high"] == 1 and 0 < found[f"{name}_low"] < 1


def test_unlabelled_moments_change_nothing() -> None:
    plain = evaluate(["aabb", "bbcc"], ["abbb", "bbcb"])
    padded = evaluate(["..aabb..", "bbcc."], ["ccabbbaa", "bbcba"])
    for name in SCORES:
        assert padded[name] == plain[name]
    assert padded["confusion"] == plain["confusion"] and padded["log_loss"] == pytest.approx(plain["log_loss"])
    assert padded["unlabelled"] == 5


def test_a_clip_without_labels_counts_as_scored_and_changes_nothing() -> None:
    one, two = evaluate(["aabb", "bbcc"], ["abbb", "bbcb"]), evaluate(["aabb", "bbcc", "..."], ["abbb", "bbcb", "abc"])
    assert two["n"] == 3 and {name: two[name] for name in SCORES} == {name: one[name] for name in SCORES}
    with pytest.raises(DataError, match="none of the 3 moments of 1 clips has a label"):
        evaluate(["..."], ["abc"])


def test_point_values_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true = ["".join(rng.choice(list(".abc"), 20)) for _ in range(9)]
    predicted = ["".join(rng.choice(list("abc"), 20)) for _ in range(9)]
    found = evaluate(true, predicted)
    t, p = np.concatenate([track(x) for x in true]), np.concatenate([track(x) for x in predicted])
    t, p = t[t >= 0], p[t >= 0]
    assert found["frame_accuracy"] == pytest.approx(reference.accuracy_score(t, p))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(t, p, average="macro"))
    assert found["confusion"] == reference.confusion_matrix(t, p).tolist()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(".abc", min_size=1, max_size=8), st.integers(0, 99)), min_size=1), st.data())
def test_scores_are_in_range_their_intervals_in_order_and_blind_to_names_and_order(
    clips: list[tuple[str, int]], data: st.DataObject
) -> None:
    true = [text for text, _ in clips]
    if not "".join(true).strip("."):
        return
    predicted = ["".join(np.random.default_rng(seed).choice(list("abc"), len(text))) for text, seed in clips]
    found = evaluate(true, predicted, resamples=60)
    for name in SCORES:
        assert 0 <= found[name] <= 1
        if found[f"{name}_low"] is not None:
            assert 0 <= found[f"{name}_low"] <= found[f"{name}_high"] <= 1
    order = data.draw(st.permutations(range(len(true))))
    names = str.maketrans("abc", "bca")
    renamed = [[many[i].translate(names) for i in order] for many in (true, predicted)]
    other = evaluate(*renamed, resamples=9)
    for name in SCORES:
        assert other[name] == pytest.approx(found[name])


def test_intervals_are_those_of_a_plain_bootstrap_over_groups() -> None:
    rng = np.random.default_rng(3)
    true = ["".join(rng.choice(list("abc"), 12)) for _ in range(24)]
    predicted = ["".join(c if rng.random() < 0.7 else "a" for c in text) for text in true]
    groups = [str(i // 3) for i in range(24)]
    found = evaluate(true, predicted, groups, resamples=250)
    samples = []
    for _ in range(250):
        drawn = [3 * g + i for g in rng.integers(0, 8, 8) for i in range(3)]
        one = evaluate([true[i] for i in drawn], [predicted[i] for i in drawn], resamples=1)
        samples.append((one["edit"], one["f1_25"]))
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    for index, name in enumerate(("edit", "f1_25")):
        assert found[f"{name}_low"] == pytest.approx(low[index], abs=0.04)
        assert found[f"{name}_high"] == pytest.approx(high[index], abs=0.04)


def test_what_does_not_fit_is_refused() -> None:
    good = {"paths": ["a"], "labels": [track("ab")], "probabilities": [sure("ab")], "groups": ["g"]}
    for change, message in (
        ({"labels": [track("abc")]}, "do not fit"),
        ({"labels": [np.array([0, 3])]}, "from -1 to 2"),
        ({"probabilities": [sure("ab") * 2]}, "sum to 1"),
        ({"groups": []}, "0 groups"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_frames(**(good | change), classes=CLASSES, expected=1, failed=[])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 files expected"):
        evaluate_frames(**good, classes=CLASSES, expected=2, failed=[])  # type: ignore[arg-type]
