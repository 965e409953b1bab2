"""A training leaves nothing behind, and its memory does not grow; the script does the same for 50 epochs."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.stages import keeper


def test_a_training_leaves_nothing_behind(make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soak_train = importlib.import_module("soak_train")
    monkeypatch.setattr(keeper, "SAVE_SECONDS", 0.0)
    config = make_config(training__workers=2)
    found = soak_train.soak(dataclasses.replace(config, name="soak"), tmp_path, 10)
    assert found.pop("rss") < 1.1 and found.pop("workers_rss") < 1.1
    assert found == {"fds": 0, "children": 0, "threads": 0, "shared_memory": 0}
