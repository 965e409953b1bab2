from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.calibration import COLDEST, calibration, fit_temperature, rescaled


def drawn(n: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `scale` times too large for labels that were drawn from their softmax."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(n, 4)) * 2
    p = rescaled(np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True), 1.0)
    labels = np.array([rng.choice(4, p=row) for row in p])
    return honest * scale, labels


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_is_what_the_logits_are_too_large_by(scale: float) -> None:
    assert fit_temperature(*drawn(4000, scale)) == pytest.approx(scale, rel=0.1)


def test_a_handful_of_right_answers_does_not_make_a_model_certain() -> None:
    """The log loss of clips that are all right falls for ever as the temperature does."""
    logits = np.eye(4)[[0, 1, 2, 3, 0]] * 2.0
    labels = np.array([0, 1, 2, 3, 0])
    temperature = fit_temperature(logits, labels)
    assert temperature > COLDEST * 2
    assert rescaled(np.exp(logits), temperature).max() == pytest.approx(6 / 7, abs=1e-3)


def test_scaling_changes_no_label_and_log_probabilities_do_as_well_as_logits() -> None:
    logits, labels = drawn(300, 3.0)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    temperature = fit_temperature(logits, labels)
    assert fit_temperature(np.log(p), labels) == pytest.approx(temperature, rel=1e-9)
    scaled = rescaled(p, temperature)
    assert scaled.sum(axis=1) == pytest.approx(np.ones(300))
    assert np.array_equal(scaled.argmax(axis=1), logits.argmax(axis=1))
    assert rescaled(scaled, 1 / temperature) == pytest.approx(p, abs=1e-9)


def test_the_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.55, 0.45]])
    found = calibration(p, np.array([0, 1, 1, 0]), ["a", "b", "c", "d"])
    # the first two share a bin: sure 0.9, right 0.5; then 0.8 and right, 0.55 and right
    assert found["ece"] == pytest.approx((2 * 0.4 + 0.2 + 0.45) / 4)
    assert [one["answers"] for one in found["bins"]] == [1, 1, 2]
    assert found["ece_low"] < found["ece"] <= found["ece_high"]
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.1, 0.8, 0.55]).mean())


def test_scaling_mends_an_overconfident_model() -> None:
    logits, labels = drawn(1200, 4.0)
    fresh, truth = drawn(1200, 4.0, seed=1)
    p = np.exp(fresh - fresh.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    groups = [str(i) for i in range(1200)]
    before = calibration(p, truth, groups)["ece"]
    after = calibration(rescaled(p, fit_temperature(logits, labels)), truth, groups)["ece"]
    assert before > 0.2 and after < 0.05


def test_few_answers_have_a_calibration_error_by_chance() -> None:
    logits, labels = drawn(800, 1.0)
    p = rescaled(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1.0)
    few, many = (calibration(p[:n], labels[:n], [str(i) for i in range(n)]) for n in (40, 800))
    assert few["ece_by_chance"] > 2 * many["ece_by_chance"]
    assert many["ece"] < 2 * many["ece_by_chance"]  # these are honest


def test_one_class_and_certain_answers_have_a_calibration_too() -> None:
    assert calibration(np.ones((3, 1)), np.zeros(3, dtype=np.int64), ["a", "b", "c"])["ece"] == 0
    assert fit_temperature(np.zeros((3, 1)), np.zeros(3, dtype=np.int64)) > 0
