"""Search spaces: what they may hold, and what is said about what they may not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.sweep import read_sweep
from pipeline.config import Config, RecurrentConfig
from pipeline.config.sweep import SweepConfig
from pipeline.errors import ConfigError
from pipeline.stages.sweep.run import objective
from pipeline.stages.sweep.space import Dimension, applied, check_fit, check_grid, read_space

RATE, HIDDEN = "training.learning_rate", "recurrent.hidden"


def test_values_have_the_type_of_their_option() -> None:
    space = {
        RATE: {"low": 1e-4, "high": 1, "log": True},
        HIDDEN: {"low": 8, "high": 33, "step": 8},
        "recurrent.kind": {"values": ["lstm", "gru"]},
        "recurrent.bidirectional": {"values": [True, False]},
        "recurrent.dropout": {"values": [0, 0.5]},
    }
    rate, hidden, kind, both, dropout = read_space(space)
    assert rate == Dimension(RATE, low=1e-4, high=1.0, log=True) and not rate.whole
    assert hidden.whole and hidden.points() == [8, 16, 24, 32]
    assert kind.points() == ["lstm", "gru"] and both.points() == [True, False] and dropout.points() == [0.0, 0.5]
    assert {type(value) for value in (*hidden.points(), *both.points(), *dropout.points())} == {int, bool, float}
    assert check_grid([hidden, kind, both]) == 16


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        ({}, ["space is empty", "training.learning_rate"]),
        ({"training.learning_rat": {"values": [1]}}, ["did you mean 'training.learning_rate'?"]),
        ({"training": {"learning_rate": {"values": [1]}}}, ["training is a section", "training.epochs"]),
        ({RATE: {"low": -1, "high": 1}}, [RATE, "a number above 0", "given: -1"]),
        ({RATE: {"low": 1, "high": 1}}, [RATE, "below high"]),
        ({RATE: {"low": 1}}, [RATE, "both low and high"]),
        ({RATE: {"low": 1, "hihg": 2}}, ["no 'hihg'", "did you mean 'high'?"]),
        ({RATE: {"low": 1, "high": 2, "log": True, "step": 1}}, [RATE, "no step"]),
        ({RATE: {"low": 1, "high": 2, "log": "yes"}}, [RATE, "true or false"]),
        ({RATE: 1e-3}, [RATE, "needs {values"]),
        ({RATE: {"values": []}}, [RATE, "at least one value"]),
        ({RATE: {"values": [1], "low": 1}}, [RATE, "nothing beside it"]),
        ({RATE: {"values": [[1]]}}, [RATE, "one value at a time"]),
        ({HIDDEN: {"low": 8.5, "high": 9}}, [HIDDEN, "a whole number above 0", "8.5"]),
        ({HIDDEN: {"low": 8, "high": 16, "step": 0.5}}, [HIDDEN, "whole number above 0", "0.5"]),
        ({"recurrent.kind": {"values": ["lstn"]}}, ["recurrent.kind", "lstn", "layer_norm_lstm"]),
        ({"encoder.name": {"low": 1, "high": 2}}, ["encoder.name", "no number", "values"]),
        ({"data.val": {"values": [0.1]}}, ["data.val must not vary", "compared"]),
        ({"tracking.enabled": {"values": [True]}}, ["tracking.enabled must not vary"]),
        ({"name": {"values": ["a"]}}, ["name must not vary"]),
    ],
)
def test_what_is_no_space_is_a_complaint_of_one_line(space: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_space(space)
    assert "\n" not in str(error.value) and all(part in str(error.value) for part in parts), str(error.value)


def test_there_is_no_grid_of_a_continuum_nor_one_without_end() -> None:
    with pytest.raises(ConfigError, match="continuum"):
        check_grid(read_space({RATE: {"low": 1e-4, "high": 1.0}}))
    with pytest.raises(ConfigError, match="1002001 combinations"):
        check_grid(read_space({HIDDEN: {"low": 1, "high": 1001}, "recurrent.layers": {"low": 1, "high": 1001}}))


def test_a_value_that_fits_to_no_other_is_found_and_one_that_fits_to_some_is_not() -> None:
    zoneout = {"recurrent.zoneout": {"values": [0.0, 0.1]}}
    check_fit(Config(), read_space({"recurrent.kind": {"values": ["lstm", "gru"]}, **zoneout}))
    with pytest.raises(ConfigError, match=r"recurrent\.zoneout cannot be 0\.1: recurrent\.zoneout is for lstm"):
        check_fit(Config(), read_space({"recurrent.kind": {"values": ["rnn", "gru"]}, **zoneout}))
    with pytest.raises(ConfigError, match=r"video\.streams cannot be rgbb"):
        check_fit(Config(), read_space({"video.streams": {"values": ["rgb", "rgbb"]}}))


def test_options_of_one_section_change_together() -> None:
    base = Config(recurrent=RecurrentConfig(kind="gru"))
    changed = applied(base, {"recurrent.zoneout": 0.1, "recurrent.kind": "lstm", "seed": 3, RATE: 0.5})
    assert (changed.recurrent.zoneout, changed.recurrent.kind, changed.seed) == (0.1, "lstm", 3)
    assert changed.training.learning_rate == 0.5 and base == Config(recurrent=RecurrentConfig(kind="gru"))


@given(low=st.integers(1, 200), span=st.integers(1, 200), step=st.integers(1, 50))
def test_the_points_of_a_step_lie_between_the_ends(low: int, span: int, step: int) -> None:
    assert Dimension(HIDDEN, low=low, high=low + span, step=step).points() == list(range(low, low + span + 1, step))
    tenths = Dimension("recurrent.dropout", low=low / 10, high=(low + span) / 10, step=step / 10).points()
    assert tenths == pytest.approx([x / 10 for x in range(low, low + span + 1, step)])


def test_a_file_names_its_base_as_seen_from_itself(tmp_path: Any) -> None:
    (tmp_path / "train.yaml").write_text("training: {epochs: 7}\n")
    (tmp_path / "s.yaml").write_text(f"base: train.yaml\nspace:\n  {RATE}: {{low: 1e-4, high: 1e-2, log: true}}\n")
    _, config = read_sweep([str(tmp_path / "s.yaml"), "--trials", "3", "--base.training.batch_size", "5"])
    assert (config.base.training.epochs, config.base.training.batch_size, config.trials) == (7, 5, 3)
    assert config.space == {RATE: {"low": 1e-4, "high": 1e-2, "log": True}}
    with pytest.raises(ConfigError, match=r"did you mean 'base\.training\.epochs'"):
        read_sweep(["--base.training.epoch", "3"])


def test_trials_are_compared_by_validation_alone() -> None:
    for task, metric, minimise in (
        ("label", "val_top1", False), ("frame_label", "val_frame_accuracy", False), ("regression", "val_mae", True),
    ):  # fmt: skip
        assert objective(SweepConfig(base=Config(task=task))) == (metric, minimise)  # type: ignore[arg-type]
    assert objective(SweepConfig(metric="val/loss")) == ("val_loss", True)
    with pytest.raises(ConfigError, match="no test any more"):
        objective(SweepConfig(metric="test/top1"))
    with pytest.raises(ConfigError, match="choose auto, val_loss or val_top1"):
        objective(SweepConfig(metric="val_mae"))
