from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import CheckpointError
from pipeline.model import checkpoint
from pipeline.stages.models import load_model
from pipeline.stages.predict import Predictor


def heated(predictor: Predictor, temperature: float) -> Predictor:
    """The same model at another temperature."""
    card = replace(predictor.card, extra={**predictor.card.extra, "calibration": {"temperature": temperature}})
    return Predictor(predictor.model, card, predictor.device, predictor.digest)


def features(predictor: Predictor) -> dict[str, np.ndarray]:
    size = predictor.model.branches["rgb"].standardisation.mean.shape[0]
    return {"rgb": np.random.default_rng(3).normal(size=(4, size)).astype(np.float32)}


def test_a_training_leaves_a_temperature_of_its_validation_clips(example: Any, predictor: Predictor) -> None:
    found = predictor.card.extra["calibration"]
    assert predictor.temperature == found["temperature"] != 1.0
    assert found["answers"] == 6 and found["thresholds"][-1][1] == 6
    assert checkpoint.load(example.folder / "last")[1].extra.get("calibration") is None


def test_the_temperature_changes_probabilities_and_no_label(predictor: Predictor) -> None:
    plain, hot = heated(predictor, 1.0), heated(predictor, 3.0)
    one = features(predictor)
    with torch.inference_mode():
        batch = torch.from_numpy(one["rgb"])[None]
        logits = predictor.model.head({"rgb": batch}, torch.tensor([4]))[0].double()
    assert plain.from_features(one).tolist() == torch.softmax(logits, -1).tolist()  # as it was without calibration
    assert hot.from_features(one) == pytest.approx(torch.softmax(logits / 3, -1).numpy(), abs=1e-12)
    assert hot.from_features(one).argmax() == plain.from_features(one).argmax()


def test_clips_and_steps_have_the_same_temperature(predictor: Predictor) -> None:
    hot, state = heated(predictor, 4.0), None
    one = features(predictor)
    for moment in one["rgb"]:
        answer, state = hot.step({"rgb": moment}, state)
    assert answer == pytest.approx(hot.from_features(one), abs=1e-6)


def test_a_checkpoint_from_before_there_was_a_temperature_answers_as_it_did(predictor: Predictor) -> None:
    old = replace(predictor.card, extra={})
    assert Predictor(predictor.model, old, predictor.device, "").temperature == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, "warm", None, float("inf")])
def test_a_damaged_temperature_is_refused(predictor: Predictor, temperature: Any) -> None:
    with pytest.raises(CheckpointError, match="temperature"):
        heated(predictor, temperature)


def test_the_temperature_is_found_again_and_belongs_to_the_digest(
    example: Any, predictor: Predictor, tmp_path: Path
) -> None:
    hot = heated(predictor, 2.5)
    checkpoint.save(tmp_path / "model", hot.model.state_dict(), hot.card)
    again = load_model(tmp_path / "model", "cpu")
    assert again.temperature == 2.5 and again.digest != predictor.digest
