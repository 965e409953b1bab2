from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.paired import LEVEL, difference, mcnemar, verdict

COUNTS = st.integers(0, 60)


@settings(max_examples=25, deadline=None)
@given(COUNTS, COUNTS)
def test_mcnemar_is_symmetric_and_a_probability(only_a: int, only_b: int) -> None:
    p = mcnemar(only_a, only_b)
    assert p == mcnemar(only_b, only_a)
    assert 0 < p <= 1


@settings(max_examples=25, deadline=None)
@given(COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_tail(only_a: int, only_b: int) -> None:
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = Fraction(sum(math.comb(n, k) for k in range(fewer + 1)), 2**n)
    assert mcnemar(only_a, only_b) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 30), st.integers(1, 30))
def test_a_more_uneven_split_of_as_many_clips_is_less_probable(fewer: int, more: int) -> None:
    n = 2 * fewer + more
    values = [mcnemar(k, n - k) for k in range(n // 2 + 1)]
    assert values == sorted(values)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 5) == 2 / 32  # five clips cannot show anything at this level
    assert mcnemar(0, 6) == 2 / 64
    assert mcnemar(1, 7) == 2 * 9 / 256


@pytest.mark.parametrize(("only_a", "only_b"), [(480, 519), (480, 520), (4800, 5200), (0, 5000)])
def test_large_counts_neither_overflow_nor_jump(only_a: int, only_b: int) -> None:
    n, k = only_a + only_b, min(only_a, only_b)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2))
        for i in range(k + 1)
    )
    assert mcnemar(only_a, only_b) == pytest.approx(2 * tail, rel=1e-6)


def shares(right: np.ndarray) -> np.ndarray:
    return np.stack([right.astype(float), np.ones(len(right))], axis=1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abcdef")), min_size=1, max_size=40))
def test_the_difference_is_antisymmetric(clips: list[tuple[bool, bool, str]]) -> None:
    a, b = (shares(np.array([clip[side] for clip in clips])) for side in (0, 1))
    groups = [clip[2] for clip in clips]
    one, other = difference(a, b, groups, 200), difference(b, a, groups, 200)
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["difference"] == pytest.approx(a[:, 0].mean() - b[:, 0].mean())
    if one["difference_low"] is not None:
        assert one["difference_low"] == pytest.approx(-other["difference_high"], abs=1e-9)
        assert one["difference_low"] <= one["difference"] + 1e-9


def test_a_model_does_not_differ_from_itself() -> None:
    right = shares(np.arange(30) % 3 > 0)
    found = difference(right, right, [str(i % 7) for i in range(30)])
    assert (found["difference"], found["difference_low"], found["difference_high"]) == (0, 0, 0)
    assert "same on every clip" in found["note"]
    assert verdict(found, mcnemar(0, 0), higher=True) == "undecided"


def test_moments_weigh_alike_whatever_the_length_of_their_clips() -> None:
    a, b = np.array([[10.0, 10], [0, 2]]), np.array([[0.0, 4], [2, 2]])
    found = difference(a, b, ["x", "y"])
    assert (found["a"], found["b"]) == (10 / 12, 2 / 6)


def test_an_error_is_better_when_it_is_smaller() -> None:
    rng = np.random.default_rng(0)
    a = np.stack([rng.uniform(0, 1, 40), np.ones(40)], axis=1)
    b = a + [1, 0]
    found = difference(a, b, [str(i) for i in range(40)])
    assert verdict(found, None, higher=False) == "a"
    assert verdict(difference(b, a, [str(i) for i in range(40)]), None, higher=False) == "b"


@pytest.mark.parametrize(
    ("a", "b", "groups"),
    [(np.zeros((0, 2)), np.zeros((0, 2)), []), (np.ones((2, 2)), np.ones((3, 2)), ["x"] * 2),
     (np.ones((2, 2)), np.array([[1.0, 1], [0, 0]]), ["x", "y"])],
)  # fmt: skip
def test_scores_that_do_not_fit_are_refused(a: np.ndarray, b: np.ndarray, groups: list[str]) -> None:
    with pytest.raises(ValueError):
        difference(a, b, groups)


def decided(rng: np.random.Generator, size: int, spread: float) -> tuple[bool, bool]:
    """Whether McNemar's test and the verdict call one of two equal models better; `spread`: how alike the clips of a
    group are (0: not at all, 1: each group is right or wrong as a whole)."""
    groups = np.repeat(np.arange(40), size)
    easy = rng.random(40)
    shared = [rng.random(40) < easy for _ in range(2)]
    right = [
        np.where(rng.random(len(groups)) < spread, one[groups], rng.random(len(groups)) < easy[groups])
        for one in shared
    ]
    p = mcnemar(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    found = difference(shares(right[0]), shares(right[1]), [str(g) for g in groups], 300)
    return p < LEVEL, verdict(found, p, higher=True) != "undecided"


@pytest.mark.parametrize(("size", "spread"), [(1, 0.0), (4, 0.8)])
def test_of_two_equal_models_one_is_called_better_in_at_most_one_of_twenty_comparisons(
    size: int, spread: float
) -> None:
    rng = np.random.default_rng(5)
    trials = np.array([decided(rng, size, spread) for _ in range(250)])
    alone, both = trials.mean(axis=0)
    assert both <= 0.08  # 0.05 and two standard errors of 250 trials, and what 40 groups lack
    assert both >= 0.005  # and it is no test that never decides
    if spread:  # clips of one source are no independent witnesses: the bootstrap over sources is there for that
        assert alone > 0.1
