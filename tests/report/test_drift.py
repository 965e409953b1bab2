from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.drift import bin_names, binned, chance, compare, drift_figure, jensen_shannon, psi


def test_the_measures_are_those_of_the_formulas() -> None:
    one, other = [30, 10], [10, 30]
    a, b = np.array([30.5, 10.5]) / 41, np.array([10.5, 30.5]) / 41
    assert psi(one, other) == pytest.approx(((a - b) * np.log(a / b)).sum())
    assert psi(one, other) == pytest.approx(psi(other, one)) and psi(one, one) == 0
    assert jensen_shannon([5, 0], [0, 9]) == 1.0 and jensen_shannon([3, 6], [1, 2]) == pytest.approx(0)
    # 2 x 2 table: chi-square is n (ad - bc)^2 / products of the margins = 80 * 800^2 / 40^4 = 20, p = 7.7e-6
    assert chance(one, other) == pytest.approx(7.7e-6, rel=0.01)
    assert chance([20, 20, 20], [10, 20, 30]) == pytest.approx(math.exp(-8 / 3))  # 16/3, two degrees of freedom
    assert chance([20, 20, 20, 20], [10, 20, 30, 20]) == pytest.approx(0.1490, abs=1e-4)  # 16/3, three
    assert chance([5, 5], [0, 0]) == 1.0 and chance([7], [9]) == 1.0


def test_samples_of_one_population_are_no_drift_and_a_shift_is() -> None:
    rng, names = np.random.default_rng(0), [str(i) for i in range(8)]
    shares = rng.dirichlet(np.full(8, 3.0))
    shifted = shares * 0.5 + 0.5 * (np.arange(8) == shares.argmax())
    for before, now in ((160, 20), (320, 300), (48, 1000)):
        drawn = [(rng.multinomial(before, shares), rng.multinomial(now, shares)) for _ in range(200)]
        assert np.mean([compare("x", names, a, b)["drift"] for a, b in drawn]) <= 0.03
    for before, now in ((320, 300), (48, 1000)):
        drawn = [(rng.multinomial(before, shares), rng.multinomial(now, shifted)) for _ in range(50)]
        assert np.mean([compare("x", names, a, b)["drift"] for a, b in drawn]) > 0.9


def test_many_classes_and_few_files_raise_no_alarm() -> None:
    rng, names = np.random.default_rng(1), [str(i) for i in range(101)]
    shares = rng.dirichlet(np.full(101, 3.0))
    drawn = [(rng.multinomial(5000, shares), rng.multinomial(50, shares)) for _ in range(100)]
    parts = [compare("x", names, a, b) for a, b in drawn]
    assert np.mean([part["drift"] for part in parts]) <= 0.04
    assert np.mean([part["psi"] > 0.2 for part in parts]) > 0.9  # which the usual rule would call a large shift


def test_numbers_fall_into_their_bins() -> None:
    edges = [0.5, 0.9]
    assert binned([0.1, 0.5, 0.6, 0.9, 1.0], edges) == [1, 2, 2]
    assert bin_names(edges) == ["below 0.5", "0.5 to 0.9", "0.9 and more"] and bin_names([]) == ["all"]


def test_the_picture_shows_at_most_so_many_bins(tmp_path: Path) -> None:
    few = compare("labels", ["a", "b $x$"], [9, 1], [1, 9]) | {"title": "labels", "before_name": "training"}
    many = compare("labels", [str(i) for i in range(101)], [1] * 101, [2] * 101)
    many |= {"title": "labels", "before_name": "training"}
    drift_figure([few], tmp_path / "few.png")
    drift_figure([many, few], tmp_path / "many.png")
    with Image.open(tmp_path / "few.png") as picture, Image.open(tmp_path / "many.png") as large:
        assert picture.height < large.height < 2500
