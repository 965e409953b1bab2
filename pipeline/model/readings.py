"""How often a checkpoint's test split was read: a list beside the model, which its digest leaves out.

Whoever looks at the test split, changes something and looks again has made it a validation split. Nothing can forbid
that; so each look is written down where everybody sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from pipeline.disk import replacing
from pipeline.errors import CheckpointError

READINGS = "readings.json"


@dataclass(frozen=True)
class TestReading:
    """One look at the test split.

    Attributes:
        id: names it, so that it counts once wherever it is noted.
        time: ISO 8601, UTC.
        command: what looked: train, evaluate, with what it looked for.
        split_digest: of the split of the checkpoint.
        clips: how many of its test clips were scored.
        score: name of the score that comes first for the task.
        value: of that score; None where it is not defined.
        model: digest of the checkpoint.
    """

    id: str
    time: str
    command: str
    split_digest: str
    clips: int
    score: str
    value: float | None
    model: str


def read(path: Path) -> list[TestReading]:
    """The readings in a file, the oldest first; none where it is not there.

    Raises:
        CheckpointError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): how often the test split was read cannot be told; remove the file to go on"
        ) from error


def from_json(text: str) -> list[TestReading]:
    """The inverse of `as_json`.

    Raises:
        ValueError, TypeError: it is something else.
    """
    return [TestReading(**row) for row in json.loads(text)]


def merged(*lists: Iterable[TestReading]) -> list[TestReading]:
    """Those of several lists, each once, the oldest first."""
    found = {reading.id: reading for part in lists for reading in part}
    return sorted(found.values(), key=lambda reading: (reading.time, reading.id))


def add(folder: Path, fresh: Iterable[TestReading]) -> list[TestReading]:
    """Note readings beside a checkpoint, and return all of them; several processes may do so at once.

    Raises:
        CheckpointError: the list is damaged.
        OSError: the folder cannot be written.
    """
    folder = folder.resolve()
    path = folder / READINGS
    with FileLock(folder.with_name(f".{folder.name}.{READINGS}.lock"), timeout=30):
        readings = merged(read(path), fresh)
        with replacing(path) as temporary:
            temporary.write_text(as_json(readings), encoding="utf-8")
    return readings


def as_json(readings: Iterable[TestReading]) -> str:
    """The content of the file."""
    return json.dumps([asdict(reading) for reading in readings], indent=2) + "\n"
