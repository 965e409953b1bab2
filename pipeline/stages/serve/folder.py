"""From a checkpoint to the folder of a served model, and to the run that it belongs to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model import checkpoint
from pipeline.report.bootstrap import format_interval
from pipeline.tracking import models
from pipeline.tracking.runs import Run
from pipeline.video.writer import write_video


def log_model(folder: Path, run: Run) -> None:
    """Make a checkpoint the LoggedModel of a run.

    Raises:
        TrackingError: the store refuses or does not answer.
        CheckpointError: the checkpoint is damaged.
    """
    if run.run_id is None:
        return
    with built(folder) as model:
        run.model(model)


@contextmanager
def built(folder: Path) -> Iterator[Path]:
    """The folder of the served model, while it is needed.

    Args:
        folder: of the checkpoint.

    Raises:
        CheckpointError: it is damaged.
    """
    with tempfile.TemporaryDirectory() as place:
        model, facts = Path(place) / "model", facts_of(folder)
        models.build(model, folder, facts["task"], example_video(), facts)
        yield model


def facts_of(folder: Path) -> dict[str, Any]:
    """What is known of a model, as it is recorded beside it."""
    card = checkpoint.read_card(folder)
    test = card.metrics.get("test") or {}
    facts = {
        "task": checkpoint.config_of(card).task,
        "model.digest": checkpoint.digest(folder),
        "dataset.digest": card.extra.get("data_digest"),
        "split.digest": card.split.get("digest"),
        **_scores(test),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _scores(test: dict[str, Any]) -> dict[str, Any]:
    """Each score with its interval in one text: MLflow's table of versions has a line per tag."""
    bounds = {f"{name}_{end}" for name in test for end in ("low", "high")}
    return {
        f"test.{name}": format_interval(value, test[f"{name}_low"], test[f"{name}_high"])
        if f"{name}_low" in test
        else value
        for name, value in test.items()
        if name not in bounds
    }


@lru_cache(maxsize=1)
def example_video() -> bytes:
    """A small video file: eight frames of a square that moves to the right."""
    frames = np.full((8, 64, 64, 3), 40, dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[24:40, 4 + 6 * index : 20 + 6 * index] = (220, 180, 60)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "example.mp4"
        write_video(str(path), frames, 8.0)
        return path.read_bytes()
