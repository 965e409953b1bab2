"""Note each look at a model's test split: beside its checkpoint, and in its MLflow run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.errors import CheckpointError, TrackingError
from pipeline.model.checkpoint import Card
from pipeline.model.readings import TestReading, add, as_json, from_json, merged
from pipeline.report.tasks import JUDGED
from pipeline.stages.progress import say
from pipeline.tracking.evaluations import READINGS_PLACE, FinishedRun


def reading_of(card: Card, metrics: dict[str, Any], command: str, clips: int, digest: str) -> TestReading:
    """One look, now.

    Args:
        card: of the model.
        metrics: what it scored.
        command: what looked.
        clips: how many test clips were scored.
        digest: of the checkpoint.
    """
    first = JUDGED[metrics["task"]].scores[0]
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    split = str(card.split.get("digest", ""))
    return TestReading(uuid4().hex, now, command, split, clips, first, metrics[first], digest)


def note_reading(reading: TestReading, folder: Path | None, run: FinishedRun | None) -> list[TestReading]:
    """All readings of a model with this one, which is noted wherever that can be done.

    Args:
        reading: of now.
        folder: the checkpoint; None: it has no place that stays.
        run: of the model; None: it has none, or nothing is recorded.
    """
    known = [reading]
    if run is not None:
        try:
            known = merged(_in_run(run), known)
        except TrackingError as error:
            say(f"the reading of the test split is not noted in MLflow: {error}")
            run = None
    if folder is not None:
        try:
            known = add(folder, known)
        except (CheckpointError, OSError) as error:
            say(f"the reading of the test split is not noted beside the checkpoint: {error}")
    if run is not None:
        try:
            run.write_readings(as_json(known))
            run.tags({"test.readings": len(known), "test.last_reading": f"{reading.time} {reading.command}"})
        except TrackingError as error:
            say(f"the reading of the test split is not noted in MLflow: {error}")
    return known


def _in_run(run: FinishedRun) -> list[TestReading]:
    """Those that the run has."""
    text = run.readings()
    try:
        return [] if text is None else from_json(text)
    except (ValueError, TypeError) as error:
        raise TrackingError(f"{READINGS_PLACE} of the run is damaged ({error})") from error
