"""Cue videos: real files, the class in the first frames alone."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pipeline
from pipeline.video.reader import read_frames

ROOT = Path(__file__).resolve().parents[2]
CLIPS = {"train": 16, "val": 8, "test": 8}


@pytest.fixture(scope="module")
def cues() -> Any:
    return importlib.import_module("lab.cues")


def test_the_class_is_in_the_first_frames_alone(cues: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    picture = cues._picture
    monkeypatch.setattr(cues, "_picture", lambda name, rng: (drawn.append(name), picture(name, rng))[1])
    shown = cues.frames("disc", 30, np.random.default_rng(0))
    assert shown.shape == (33, 64, 64, 3) and shown.dtype == np.uint8
    assert drawn[:3] == ["disc"] * 3 and set(drawn[3:]) == set(cues.DISTRACTORS)
    assert not set(cues.DISTRACTORS) & set(cues.CLASSES)


def test_files_are_balanced_the_same_each_time_and_kept(cues: Any, tmp_path: Path) -> None:
    table = pd.read_csv(cues.write_cues(tmp_path / "a", 5, CLIPS))
    assert Counter(zip(table["split"], table["label"], strict=True)) == {
        (split, label): count // 4 for split, count in CLIPS.items() for label in cues.CLASSES
    }
    first = tmp_path / "a" / table["path"][0]
    assert len(read_frames(str(first), np.arange(8)).frames) == 8
    cues.write_cues(tmp_path / "b", 5, CLIPS)
    assert (tmp_path / "b" / first.name).read_bytes() == first.read_bytes()
    first.write_bytes(b"changed")
    cues.write_cues(tmp_path / "a", 5, CLIPS)
    assert first.read_bytes() == b"changed"


@pytest.mark.usefixtures("frozen_changes")
def test_a_cell_by_hand_and_the_features_of_the_run(cues: Any, tmp_path: Path) -> None:
    config = pipeline.load_config(
        str(ROOT / "configs/lab/cue.yaml"),
        overrides=["--training.workers", "0", "--training.epochs", "2", "--tracking.enabled", "false"],
    )
    splits = cues.prepare_cues(config, tmp_path / "gap_2", 2, CLIPS)
    assert {name: part.x.shape[:2] for name, part in splits.items()} == {k: (n, 5) for k, n in CLIPS.items()}
    train = splits["train"].x.reshape(-1, splits["train"].x.shape[2])
    assert train.mean(0) == pytest.approx(0, abs=1e-3) and train.std(0) == pytest.approx(1, abs=0.02)
    overrides = ["--data.root", str(tmp_path / "gap_2"), "--video.frames", "5", "--training.workers", "0"]
    overrides += ["--training.epochs", "1", "--tracking.enabled", "false"]
    by_hand = pipeline.load_config(str(ROOT / "configs/lab/cue.yaml"), overrides=overrides)
    assert pipeline.train(by_hand, tmp_path / "run").test["n"] == CLIPS["test"]
