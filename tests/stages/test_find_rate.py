"""The learning-rate range test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.cli import main
from pipeline.config import to_dict
from pipeline.stages.find_rate import HIGHEST, LOWEST, UPDATES, smooth, suggested
from pipeline.stages.train import train

RATES = [float(rate) for rate in np.geomspace(LOWEST, HIGHEST, UPDATES)]


def curve(falls_at: float, breaks_at: float, noise: float) -> list[float]:
    """A loss that falls from 1 to 0.2 around one rate and rises again around another."""
    place = np.log10(RATES)
    fall = 0.8 / (1 + np.exp(-8 * (place - np.log10(falls_at))))
    rise = 2.0 / (1 + np.exp(-8 * (place - np.log10(breaks_at))))
    drawn = np.random.default_rng(0).normal(0, noise, len(place))
    return [float(loss) for loss in 1 - fall + rise + drawn]


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_rate_of_the_steepest_fall_is_suggested(noise: float) -> None:
    found = suggested(RATES, curve(1e-3, 0.3, noise))
    assert found is not None and 4e-4 < found < 2e-3


def test_at_most_a_tenth_of_the_best_rate_is_suggested() -> None:
    losses = curve(1e-3, 3e-3, 0.0)
    found = suggested(RATES, losses)
    assert found is not None and found <= RATES[int(smooth(losses).argmin())] / 10


def test_where_no_rate_helps_none_is_suggested() -> None:
    assert suggested(RATES, curve(1e3, 1e4, 0.1)) is None
    assert suggested(RATES, [1 + i for i in range(UPDATES)]) is None
    assert suggested([1e-6], [1.0]) is None


def test_smoothing_keeps_a_line_of_equal_losses() -> None:
    assert smooth([2.0] * 30).tolist() == pytest.approx([2.0] * 30)


@pytest.mark.usefixtures("real_figures")
def test_the_command_reports_and_leaves_the_folder_to_a_training(
    make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.find_rate.UPDATES", 30)
    config = make_config(training__accumulate=2, training__mixup=0.2, training__ema=0.9)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_dict(config)))
    command = ["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run"), "--find_rate"]
    main([*command, "--json"])
    first = json.loads(capsys.readouterr().out)
    report = json.loads((tmp_path / "run/report/learning_rate.json").read_text())
    assert report == first and len(report["rates"]) == len(report["losses"]) == len(report["smoothed"]) > 10
    assert (tmp_path / "run/report/learning_rate.png").stat().st_size > 5000
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"report", ".lock"}
    main(command)
    assert capsys.readouterr().out.startswith("suggestion  ")
    assert json.loads((tmp_path / "run/report/learning_rate.json").read_text()) == report, "the same numbers again"
    train(config, tmp_path / "run")
    assert (tmp_path / "run/report/learning_rate.png").exists()
