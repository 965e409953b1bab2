"""The folder of a training: which one, what lies in it, and that no other training writes there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.config import Config, flatten, to_dict
from pipeline.errors import CheckpointError, UserError
from pipeline.stages.progress import say
from pipeline.stages.resume import NAME as RESUME
from pipeline.stages.resume import TrainingState, read_state
from pipeline.tracking.store import hide_password

RESULT = "result.json"
RESUMABLE = ("training.device", "training.workers", "tracking.", "name")
"""Options that a resumed training may change: they decide where it runs, not what comes out."""


def open_folder(config: Config, out: Path | None, fresh: bool, resume: bool) -> tuple[Path, TrainingState | None]:
    """The run's folder, and where its unfinished training stands; None starts a new one."""
    folder = out or _free_folder(Path("runs") / config.name, fresh)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); choose another --out") from None
    if fresh:
        return folder, None
    if (folder / RESULT).exists():
        raise UserError(f"{folder} holds a finished training; choose another --out, or replace it with --fresh")
    state = read_state(folder)
    if state is None:
        if resume:
            raise CheckpointError(f"{folder} holds no unfinished training to resume")
        return folder, None
    changed = _changed(state.config, flatten(recorded(config)))
    if changed:
        raise UserError(
            f"{folder} holds an unfinished training with another {', '.join(changed[:3])}; "
            "continue it with its own options, start over with --fresh, or choose another --out"
        )
    say(f"continuing the training in {folder} after epoch {state.epoch}")
    return folder, state


def _free_folder(wanted: Path, fresh: bool) -> Path:
    folder, number = wanted, 1
    while (folder / RESULT).exists() and not fresh:
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def clear(folder: Path) -> None:
    """Remove what a training writes, and nothing else that may lie in the folder."""
    for name in ("best", "last", "report"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (RESULT, RESUME, "catalog.parquet", "config.yaml"):
        (folder / name).unlink(missing_ok=True)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(RESUMABLE)
    ]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Two trainings in one folder would replace each other's checkpoints. A killed one leaves no lock."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another training is running in {folder}; choose another --out") from None


def recorded(config: Config) -> dict[str, Any]:
    """The configuration as it may be kept and shown: no password of a tracking store."""
    plain = to_dict(config)
    if plain["tracking"]["uri"]:
        plain["tracking"]["uri"] = hide_password(plain["tracking"]["uri"])
    return plain
