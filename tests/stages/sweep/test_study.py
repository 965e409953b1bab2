"""The study without trainings: what is asked for does not depend on when a sweep was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, TrainingConfig
from pipeline.config.sweep import SweepConfig
from pipeline.errors import ConfigError, UserError
from pipeline.stages.sweep.space import read_space
from pipeline.stages.sweep.study import Study, Trial

SPACE: dict[str, dict[str, Any]] = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "recurrent.hidden": {"values": [8, 16, 32]},
    "recurrent.layers": {"low": 1, "high": 3},
}
GRID = {name: SPACE[name] for name in ("recurrent.hidden", "recurrent.layers")}


def make(folder: Path, fresh: bool = False, url: str = "", **options: Any) -> Study:
    config = SweepConfig(base=Config(training=TrainingConfig(epochs=8)), **{"space": SPACE, **options})
    settings = {"space": config.space, "sampler": config.sampler}
    return Study(url or f"sqlite:///{folder}/study.db", config, read_space(config.space), False, settings, fresh)


def score(trial: Trial) -> float:
    return float(trial.values["recurrent.hidden"]) / trial.values["recurrent.layers"]  # type: ignore[arg-type, operator]


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "grid"])
def test_an_interrupted_study_asks_for_the_same_values(tmp_path: Path, sampler: str) -> None:
    options = {"sampler": sampler, "space": GRID if sampler == "grid" else SPACE}
    asked: list[list[dict[str, Any]]] = []
    for name, interrupted in (("whole", False), ("cut", True)):
        (tmp_path / name).mkdir()
        study, values = make(tmp_path / name, **options), []
        for number in range(12 if sampler == "tpe" else 4):  # tpe: ten at random, then two of its own
            trial = study.ask()
            if interrupted and number % 10 == 1:  # killed while it ran
                study = make(tmp_path / name, **options)
                assert study.unfinished() == [trial]
            study.tell(trial.number, "finished", score(trial))
            values.append(trial.values)
        asked.append(values)
    assert asked[0] == asked[1] and len({str(values) for values in asked[0]}) > 3


def test_a_grid_holds_every_combination_once(tmp_path: Path) -> None:
    study, seen = make(tmp_path, sampler="grid", space=GRID), []
    for _ in range(9):
        trial = study.ask()
        study.tell(trial.number, "finished", score(trial))
        seen.append((trial.values["recurrent.hidden"], trial.values["recurrent.layers"]))
    assert sorted(seen) == [(hidden, layers) for hidden in (8, 16, 32) for layers in (1, 2, 3)] != seen


def test_what_does_worse_than_the_median_is_pruned_but_not_at_once(tmp_path: Path) -> None:
    study = make(tmp_path, sampler="random")
    for _ in range(5):
        trial = study.ask()
        assert not any(study.report(trial.number, epoch, 0.5) for epoch in range(1, 9))
        study.tell(trial.number, "finished", 0.5)
    bad, good = study.ask(), study.ask()
    assert [study.report(bad.number, epoch, 0.1) for epoch in (1, 2)] == [False, True]
    assert not any(study.report(good.number, epoch, 0.9) for epoch in range(1, 9))
    told = study.tell(bad.number, "pruned", seconds=2.0)
    assert (told.state, told.value, told.epochs, told.seconds) == ("pruned", 0.1, 2, 2.0)
    study.tell(good.number, "finished", 0.9, run_id="abc")
    best = study.best()
    assert best is not None and (best.number, best.value, best.run_id) == (good.number, 0.9, "abc")


def test_a_resumed_trial_may_report_an_epoch_again(tmp_path: Path) -> None:
    study = make(tmp_path, sampler="random")
    trial = study.ask()
    study.report(trial.number, 1, 0.25)
    study = make(tmp_path, sampler="random")
    (again,) = study.unfinished()
    study.report(again.number, 1, 0.25)
    study.report(again.number, 2, 0.5)
    assert study.tell(again.number, "failed", reason="full disk").reason == "full disk"
    assert [(t.state, t.epochs, t.value) for t in study.trials()] == [("failed", 2, None)] and study.best() is None


def test_the_option_that_decides_is_the_important_one(tmp_path: Path) -> None:
    study = make(tmp_path, sampler="grid", space=GRID)
    assert study.importance() == {}
    for _ in range(9):
        trial = study.ask()
        study.tell(trial.number, "finished", float(trial.values["recurrent.hidden"]))  # type: ignore[arg-type]
    shares = study.importance()
    assert list(shares) == ["recurrent.hidden", "recurrent.layers"] and shares["recurrent.hidden"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


def test_a_study_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    make(tmp_path).ask()
    with pytest.raises(UserError, match=r"already, with another sampler; .*--fresh"):
        make(tmp_path, sampler="random")
    with pytest.raises(UserError, match="another space"):
        make(tmp_path, space=GRID)
    assert len(make(tmp_path).trials()) == 1 and make(tmp_path, fresh=True, space=GRID).trials() == []


def test_a_database_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/nowhere/study.db", "nosuch://user:secret@host/db", "hello"):
        with pytest.raises(ConfigError, match=f"storage {url[:6]}.* cannot be used") as error:
            make(tmp_path, url=url)
        assert "\n" not in str(error.value) and "secret" not in str(error.value)
