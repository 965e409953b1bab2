"""The tables on real clips: folds that leak nothing, and cells that are trainings like any other."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import (
    AugmentationConfig,
    Config,
    DataConfig,
    FlowConfig,
    RecurrentConfig,
    TrackingConfig,
    TrainingConfig,
    VideoConfig,
)
from pipeline.stages.train import train

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def modules() -> Iterator[Any]:
    """A function that imports scripts/real/NAME.py as the script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield lambda name: importlib.import_module(f"real.{name}")
    for name in [name for name in sys.modules if name == "real" or name.startswith("real.")]:
        sys.modules.pop(name)


def flow_config(root: Path | str) -> Config:
    return Config(
        data=DataConfig(root=str(root), val=0.2, folds=3, fold=1),
        video=VideoConfig(streams="flow", frames=4),
        flow=FlowConfig(grid=2, size=32),
        augmentation=AugmentationConfig(views=2),
        recurrent=RecurrentConfig(hidden=8, layers=1),
        training=TrainingConfig(epochs=3, batch_size=4, workers=0, device="cpu"),
        tracking=TrackingConfig(enabled=False),
    )


def test_a_cell_gives_the_numbers_of_train(modules: Any, tiny_clips: Path, tmp_path: Path) -> None:
    config = flow_config(tiny_clips)
    outcome = modules("cells").run_cell(config)
    row = modules("tables").make_row("tiny", "flow", "lstm", [[outcome]])
    test = train(config, tmp_path / "run").test
    assert row.pooled["coverage"] < 1  # the unreadable files count
    for key in ("top1", "top1_low", "top1_high", "macro_f1", "log_loss", "n", "expected", "coverage", "confusion"):
        assert row.pooled[key] == test[key], key
    assert np.abs(np.array(outcome.probabilities) - np.array(outcome.shuffled)).max() > 0


def test_pooling_does_not_see_the_order(modules: Any, tiny_clips: Path) -> None:
    pooled = RecurrentConfig(kind="none", pooling="max")
    outcome = modules("cells").run_cell(replace(flow_config(tiny_clips), recurrent=pooled))
    assert outcome.probabilities == outcome.shuffled


@pytest.mark.usefixtures("real_figures")
def test_an_encoder_that_is_trained_reads_the_files(modules: Any, tiny_clips: Path, tmp_path: Path) -> None:
    config = flow_config(tiny_clips)
    moving = replace(config.encoder, name="compact", weights="none", frozen=False)
    config = replace(config, video=VideoConfig(size=32, frames=4), encoder=moving)
    outcome = modules("cells").run_cell(config)
    row = modules("tables").make_row("tiny", "fine_tune", "lstm", [[outcome]])
    test = train(config, tmp_path / "run").test
    for key in ("top1", "log_loss", "n", "expected", "confusion"):
        assert row.pooled[key] == test[key], key
    assert row.shuffled["log_loss"] != row.pooled["log_loss"] and row.shuffled["n"] == row.pooled["n"]
    assert 0 < row.seconds < 60 and (row.memory is None or row.memory > 50)
    modules("tables").draw_confusion(row, tmp_path / "img")
    assert (tmp_path / "img" / "confusion_tiny_fine_tune_lstm.png").stat().st_size > 1000


def test_the_script_keeps_finished_cells_and_goes_on(
    modules: Any, tiny_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_clips), "--quick", "--json", "--kinds", "none", "lstm", "--work", str(tmp_path)]
    small = ["--video.frames", "4", "--flow.size", "32", "--recurrent.hidden", "8"]
    monkeypatch.setattr(sys, "argv", ["real_clips", *arguments, *small])
    script = runpy.run_path(str(SCRIPTS / "real_clips"))
    script["main"]()
    first = json.loads(capsys.readouterr().out)
    cells = sorted((tmp_path / "quick" / "cells").iterdir())
    assert len(cells) == 4
    before = [cell.stat().st_mtime_ns for cell in cells]
    cells[0].unlink()
    script["main"]()
    assert json.loads(capsys.readouterr().out) == first
    assert first.keys() == {"clips_flow_none", "clips_flow_lstm"}
    assert [cell.stat().st_mtime_ns for cell in cells[1:]] == before[1:]
    assert cells[0].stat().st_mtime_ns != before[0]
