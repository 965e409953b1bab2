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

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from pipeline.errors import ConfigError, DataError
from pipeline.stages.ingest import ingest
from pipeline.stages.train import train
from pipeline.video.writer import write_video

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
        data=DataConfig(root=str(root), val=0.2, test=0.2),
        video=VideoConfig(streams="flow", frames=4),
        flow=FlowConfig(grid=2, size=32),
        augmentation=AugmentationConfig(views=2),
        recurrent=RecurrentConfig(hidden=8, layers=1),
        training=TrainingConfig(epochs=3, batch_size=4, workers=0, device="cpu"),
        tracking=TrackingConfig(enabled=False),
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=30, max_size=60), st.integers(2, 5), st.integers(0, 5))
def test_each_clip_is_tested_once_and_groups_stay_whole(modules: Any, groups: list[int], count: int, seed: int) -> None:
    names = [f"group {group}" for group in groups]
    table = pd.DataFrame({
        "path": [f"/clips/{number}.mp4" for number in range(len(groups))],
        "label": ["ab"[number % 2] for number in range(len(groups))],
        "unit": names,
    })  # fmt: skip
    if len(set(groups)) < count:
        with pytest.raises(DataError, match="lower --folds"):
            modules("folds").make_folds(table, count, seed)
        return
    folds = modules("folds").make_folds(table, count, seed)
    tested = np.array([fold["split"] == "test" for fold in folds])
    assert len(folds) == count
    assert (tested.sum(axis=0) == 1).all()
    assert tested.any(axis=1).all()
    for fold in folds:
        assert fold["path"].tolist() == table["path"].tolist()
        assert fold["group"].tolist() == names
        assert (fold.groupby("group")["split"].nunique() == 1).all()


def test_another_seed_gives_other_folds_and_the_same_seed_the_same(modules: Any) -> None:
    table = pd.DataFrame({"path": [f"/{i}" for i in range(40)], "label": ["a", "b"] * 20, "unit": list(range(40))})
    one, again, other = (modules("folds").make_folds(table, 4, seed) for seed in (0, 0, 1))
    assert all(a.equals(b) for a, b in zip(one, again, strict=True))
    assert not all(a.equals(b) for a, b in zip(one, other, strict=True))


def test_clips_that_look_alike_are_one_group(modules: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 255, (8, 6, 8, 3), dtype=np.uint8) for _ in range(5)]
    # the last is the first again, encoded anew under another label
    for number, coarse in enumerate([*clips, clips[0]]):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        frames = [cv2.resize(frame, (96, 72), interpolation=cv2.INTER_CUBIC) for frame in coarse]
        write_video(str(folder / f"{number}.{'mp4' if number < 5 else 'avi'}"), np.array(frames), 10.0)
    table = ingest(DataConfig(root=str(tmp_path)), split=False).table
    assert table["unit"].nunique() == 6
    joined = modules("folds").join_alike(table)
    unit = dict(zip(joined["path"].map(lambda path: Path(path).stem), joined["unit"], strict=True))
    assert unit["0"] == unit["5"]
    assert joined["unit"].nunique() == 5


def test_training_reads_the_lists_and_takes_validation_from_other_groups(
    modules: Any, tiny_clips: Path, tmp_path: Path
) -> None:
    table = ingest(DataConfig(root=str(tiny_clips)), split=False).table
    paths = modules("folds").write_folds(table, 4, 0, tmp_path)
    tested: list[str] = []
    for path in paths:
        read = ingest(DataConfig(root=str(path), val=0.2, test=0.2)).table
        wanted = pd.read_csv(path)
        assert ((read["split"] == "test").to_numpy() == (wanted["split"] == "test").to_numpy()).all()
        sides = {split: set(part["unit"]) for split, part in read.groupby("split")}
        assert sides.keys() == {"train", "val", "test"}
        assert not sides["train"] & sides["val"]
        assert not sides["test"] & (sides["train"] | sides["val"])
        tested += read["path"][read["split"] == "test"].tolist()
    assert sorted(tested) == sorted(str(Path(path).resolve()) for path in table["path"])


def test_a_cell_gives_the_numbers_of_train(modules: Any, tiny_clips: Path, tmp_path: Path) -> None:
    table = ingest(DataConfig(root=str(tiny_clips)), split=False).table
    path = modules("folds").write_folds(table, 3, 0, tmp_path)[0]
    config = flow_config(path)
    outcome = modules("cells").run_cell(config)
    row = modules("tables").make_row("tiny", "flow", "lstm", [[outcome]])
    test = train(config, tmp_path / "run").test
    assert row.pooled["coverage"] < 1  # the unreadable files count
    for key in ("top1", "top1_low", "top1_high", "macro_f1", "log_loss", "n", "expected", "coverage", "confusion"):
        assert row.pooled[key] == test[key], key
    assert np.abs(np.array(outcome.probabilities) - np.array(outcome.shuffled)).max() > 0


def test_pooling_does_not_see_the_order(modules: Any, tiny_clips: Path, tmp_path: Path) -> None:
    table = ingest(DataConfig(root=str(tiny_clips)), split=False).table
    path = modules("folds").write_folds(table, 3, 0, tmp_path)[0]
    pooled = RecurrentConfig(kind="none", pooling="max")
    outcome = modules("cells").run_cell(replace(flow_config(path), recurrent=pooled))
    assert outcome.probabilities == outcome.shuffled


def test_an_encoder_that_is_trained_is_refused(modules: Any, tiny_clips: Path, tmp_path: Path) -> None:
    table = ingest(DataConfig(root=str(tiny_clips)), split=False).table
    path = modules("folds").write_folds(table, 3, 0, tmp_path)[0]
    config = flow_config(path)
    moving = replace(config.encoder, name="compact", weights="none", frozen=False)
    with pytest.raises(ConfigError, match=r"encoder\.frozen"):
        modules("cells").run_cell(replace(config, video=VideoConfig(size=32), encoder=moving))


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
