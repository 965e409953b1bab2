from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.errors import DataError
from pipeline.report.number_metrics import SCORES, evaluate_numbers


def evaluate(
    targets: list[Any], values: list[Any], mean: float = 0.0, groups: list[str] | None = None, **options: Any
) -> dict[str, Any]:
    n = len(targets)
    paths = [f"{i}.mp4" for i in range(n)]
    arrays = [[np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in many] for many in (targets, values)]
    return evaluate_numbers("regression", paths, *arrays, mean, groups or paths, n, [], **options)


def test_every_number_by_hand() -> None:
    found = evaluate([1, 2, 3, 6], [1, 2, 4, 4], mean=2)
    assert found["task"] == "regression" and found["moments"] == found["n"] == 4
    assert found["mae"] == pytest.approx(3 / 4)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 4))
    assert found["r2"] == pytest.approx(1 - 5 / 14)
    assert found["baseline"] == {
        "value": 2,
        "mae": pytest.approx(6 / 4),
        "rmse": pytest.approx(np.sqrt(18 / 4)),
        "r2": pytest.approx(1 - 18 / 14),
    }
    json.dumps(found, allow_nan=False)


def test_unknown_targets_are_left_out() -> None:
    found = evaluate([[1, np.nan, 2], [np.nan, 3, 6]], [[1, 99, 2], [-99, 4, 4]], mean=2)
    plain = evaluate([[1, 2], [3, 6]], [[1, 2], [4, 4]], mean=2)
    assert {name: found[name] for name in SCORES} == {name: plain[name] for name in SCORES}
    assert found["moments"] == 4 and found["n"] == 2
    with pytest.raises(DataError, match="none of the targets of 1 clips is known"):
        evaluate([[np.nan]], [[1.0]])


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_point_values_equal_scikit_learn_far_from_zero_too(offset: float) -> None:
    rng = np.random.default_rng(0)
    targets = [rng.normal(offset, 1, 7) for _ in range(20)]
    values = [target + rng.normal(0, 0.3, 7) for target in targets]
    found = evaluate(targets, values, mean=offset + 0.1)
    t, v = np.concatenate(targets), np.concatenate(values)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(t, v))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(t, v))
    assert found["r2"] == pytest.approx(reference.r2_score(t, v))


def test_perfect_and_the_mean_itself() -> None:
    perfect = evaluate([1, 2, 5], [1, 2, 5])
    assert (perfect["mae"], perfect["rmse"], perfect["r2"]) == (0, 0, 1)
    always = evaluate([1, 2, 6], [3, 3, 3], mean=3)
    assert always["r2"] == pytest.approx(0)
    assert {name: always[name] for name in SCORES} == pytest.approx({name: always["baseline"][name] for name in SCORES})


def test_targets_that_do_not_vary_have_no_r2() -> None:
    found = evaluate([0.1] * 5, [0.1, 0.2, 0.1, 0.3, 0.1], mean=7.3)
    assert found["r2"] is found["r2_low"] is found["baseline"]["r2"] is None
    assert found["mae_low"] is not None


def test_intervals_hold_the_point_and_come_from_groups() -> None:
    rng = np.random.default_rng(1)
    targets = rng.normal(0, 1, 60)
    shift = np.repeat(rng.normal(0, 1, 6), 10)  # clips of a group err alike
    own = evaluate(list(targets), list(targets + shift))
    grouped = evaluate(list(targets), list(targets + shift), groups=[str(i // 10) for i in range(60)])
    for name in SCORES:
        assert grouped[f"{name}_low"] <= grouped[name] <= grouped[f"{name}_high"]
    assert grouped["mae_high"] - grouped["mae_low"] > 1.5 * (own["mae_high"] - own["mae_low"])
    alone = evaluate(list(targets), list(targets + shift), groups=["g"] * 60)
    assert alone["groups"] == 1 and "one group" in alone["note"]
    assert evaluate([1.0], [2.0])["mae_low"] is None


numbers = st.floats(-100, 100)


@settings(max_examples=50)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12), st.floats(0.1, 10), numbers)
def test_unit_and_zero_do_not_matter_to_r2(pairs: list[tuple[float, float]], scale: float, shift: float) -> None:
    targets, values = ([pair[i] for pair in pairs] for i in (0, 1))
    if np.std(targets) < 1e-2:
        return
    one = evaluate(targets, values, mean=1.0, resamples=5)
    moved = [[scale * x + shift for x in many] for many in (targets, values)]
    other = evaluate(*moved, mean=scale + shift, resamples=5)
    assert one["mae"] <= one["rmse"] + 1e-9 and one["r2"] <= 1
    assert other["mae"] == pytest.approx(scale * one["mae"], abs=1e-9)
    assert other["r2"] == pytest.approx(one["r2"], abs=1e-6, rel=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        evaluate([[1, 2]], [[1]])
    with pytest.raises(ValueError, match="finite"):
        evaluate([1.0], [np.nan])
    with pytest.raises(ValueError, match="finite"):
        evaluate([np.inf], [1.0])
