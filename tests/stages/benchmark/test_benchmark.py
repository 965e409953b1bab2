"""The benchmark on real clips, for a second or two: what it measures, prints and leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config import TrackingConfig
from pipeline.report.benchmark_text import benchmark_text, duration
from pipeline.stages.benchmark.run import as_dict, benchmark_training

LOADED = ["decode", "transform"]


def check(found: dict[str, Any], steps: dict[str, list[str]]) -> None:
    """Everything was measured, adds up, and shows."""
    assert {phase["name"]: list(phase["seconds"]) for phase in found["phases"]} == steps
    for phase in found["phases"]:
        assert all(seconds > 0 for seconds in phase["seconds"].values())
        assert sum(phase["shares"].values()) == pytest.approx(1)
        assert 1 / sum(phase["seconds"].values()) <= phase["bound"] < 1 / max(phase["seconds"].values())
        assert phase["rate"] > 0 and 0 <= phase["waiting"] < 1
    text = benchmark_text(found)
    assert all(f"  {step} " in text for names in steps.values() for step in names)
    assert text.endswith(found["advice"]["text"]) and max(map(len, text.splitlines()[1:-1])) <= 100


def test_a_trained_encoder_costs_everything_in_each_epoch(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config(tracking=TrackingConfig(uri=f"sqlite:///{tmp_path}/mine.db"))
    found = as_dict(benchmark_training(config, 1.0))
    parts = ["copy", "encoder", "head", "backward", "optimiser", "tracking"]
    check(found, {"epoch": LOADED + parts})
    assert found["source"] == config.data.root and found["clips"] >= 10
    assert found["phases"][0]["clips"] == 2 * 14  # epochs, and 0.4 of the 35 files that are named
    assert list(tmp_path.iterdir()) == []  # neither a store nor a run


def test_a_frozen_encoder_costs_once_and_its_epochs_the_recurrence_alone(make_config: Any, own_cache: Path) -> None:
    before = sorted((own_cache / "features").rglob("*"))
    frozen = {"encoder__name": "mobilenet_v3_small", "encoder__weights": "packaged", "encoder__frozen": True}
    config = make_config(**frozen, training__accumulate=2)
    found = as_dict(benchmark_training(config, 1.0))
    epoch = ["read", "copy", "head", "backward", "optimiser"]
    check(found, {"extraction": [*LOADED, "copy", "encoder"], "stored features": epoch})
    assert sorted((own_cache / "features").rglob("*")) == before


def test_of_a_model_classification_is_timed(predictor: Any, example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(["benchmark", str(example.folder), "--seconds", "1", "--training.workers", "0", "--json"])
    found = json.loads(capsys.readouterr().out)
    check(found, {"classification": [*LOADED, "copy", "encoder", "head"]})
    assert found["workers"] == 0 and found["source"] == example.config.data.root


def test_without_data_demo_clips_stand_in(make_config: Any, tmp_path: Path) -> None:
    config = make_config(data__root=str(tmp_path / "gone"), video__streams="flow")
    found = as_dict(benchmark_training(config, 0.5))
    assert found["source"] == f"demo clips; data.root {tmp_path / 'gone'} is not there"
    epoch = ["read", "copy", "head", "backward", "optimiser"]
    check(found, {"extraction": ["decode", "flow", "copy"], "stored features": epoch})


def test_a_model_keeps_its_options(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", str(example.folder), "--video.size", "64"])
    assert stopped.value.code == 2
    assert "is a trained model, which has its options" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", str(tmp_path / "missing")])
    assert "no such checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (9.97, "10 s"), (89, "89 s"), (180, "3 min"), (9000, "2.5 h")]
)
def test_durations_come_in_the_unit_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text
