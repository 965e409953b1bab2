from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig
from pipeline.errors import CheckpointError
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.start import take_over

CONFIG = Config(
    video=VideoConfig(frames=4, size=32),
    encoder=EncoderConfig(name="compact", weights="none", frozen=False),
    recurrent=RecurrentConfig(kind="gru", hidden=6, layers=1),
)


def built(seed: int, classes: int, **changes: Any) -> Classifier:
    torch.manual_seed(seed)
    return build_classifier(replace(CONFIG, **changes), classes)


def answers(model: Classifier) -> torch.Tensor:
    frames = torch.arange(2 * 4 * 3 * 32 * 32).reshape(2, 4, 3, 32, 32) % 251
    with torch.inference_mode():
        return model.eval()({"rgb": frames.to(torch.uint8)}, torch.tensor([4, 3]))


NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)


@settings(max_examples=30)
@given(classes=NAMES, known=NAMES)
def test_each_class_that_is_known_answers_as_before_wherever_it_stands(classes: list[str], known: list[str]) -> None:
    model, other = built(1, len(classes)), built(2, len(known))
    fresh = model.branches["rgb"].output.weight.clone()  # type: ignore[union-attr]
    new = take_over(model, other, classes, known)
    assert new == [name for name in classes if name not in known]
    mine, theirs = answers(model), answers(other)
    for place, name in enumerate(classes):
        if name in known:
            torch.testing.assert_close(mine[:, place], theirs[:, known.index(name)])
        else:
            assert torch.equal(model.branches["rgb"].output.weight[place], fresh[place])  # type: ignore[union-attr,index]


def test_a_model_of_the_same_classes_becomes_the_other_one() -> None:
    model, other = built(1, 3), built(2, 3)
    other.fit_standardisation("rgb", torch.full((128,), 2.0), torch.full((128,), 3.0))
    assert take_over(model, other, ["a", "b", "c"], ["a", "b", "c"]) == []
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in model.state_dict().items())


def test_numbers_take_over_all_with_their_unit() -> None:
    model, other = built(1, 1, task="regression"), built(2, 1, task="regression")
    other.fit_targets(5.0, 2.0)
    assert take_over(model, other, [], []) == []
    assert torch.equal(answers(model), answers(other)) and float(model.target_mean) == 5.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recurrent": RecurrentConfig(kind="gru", hidden=7, layers=1)}, "has the shape"),
        ({"recurrent": RecurrentConfig(kind="gru", hidden=6, layers=2)}, "only one of the models has"),
        ({"encoder": replace(CONFIG.encoder, frozen=True)}, "only one of the models has"),
        ({"task": "regression"}, "with numbers"),
    ],
)
def test_models_that_are_built_differently_are_refused_and_nothing_is_changed(
    changes: dict[str, Any], words: str
) -> None:
    model, other = built(1, 2), built(2, 2, **changes)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words):
        take_over(model, other, ["a", "b"], [] if other.numeric else ["a", "b"])
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
