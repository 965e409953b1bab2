"""The folder of a training: which one, what lies in it, and that no other training writes there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.addresses import STORE_SCHEMES
from pipeline.config import Config, flatten, to_dict
from pipeline.disk import no_room, refusal
from pipeline.errors import CheckpointError, UserError
from pipeline.stages.distributed import from_first, is_first
from pipeline.stages.progress import say
from pipeline.stages.resume import FORMER, NAME, TrainingState, recover
from pipeline.tracking.store import hide_password

RESULT = "result.json"
FOLDS = "cross_validation.json"
"""In the folder of a cross-validation, whose trainings lie in folders below it."""
RESUMABLE = ("training.device", "training.workers", "tracking.", "name")
"""Options that a resumed training may change: they decide where it runs, not what comes out."""


@contextmanager
def opened(config: Config, out: Path | None, fresh: bool, resume: bool) -> Iterator[tuple[Path, TrainingState | None]]:
    """The run's folder, for this training alone, and where its unfinished training stands; None starts a new one. Of
    several processes the first opens it for all.

    Raises:
        UserError: the folder cannot be written, is in use, or holds a training that this one may not go on with.
        CheckpointError: its state is damaged, or there is none to insist on.
    """
    if fresh and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise UserError(
            "with --fresh a restart would begin again; start torchrun with --max-restarts 0, or remove the run's folder"
        )
    if not is_first():
        name, told = from_first(dict)
        yield Path(name), TrainingState(**told) if told else None
        return
    folder = make_folder(config, out, fresh)
    if (folder / FOLDS).exists():
        raise UserError(f"{folder} holds a cross-validation; choose another --out")
    with locked(folder):  # before anything is read: whoever had it may have finished the training meanwhile
        state = None if fresh else _unfinished(folder, config, resume)
        from_first(lambda: [str(folder), state and asdict(state)])
        yield folder, state


def rooted(config: Config) -> Config:
    """With absolute paths: a checkpoint finds its data again from any folder, and what it started from."""
    if config.data.root:
        config = replace(config, data=replace(config.data, root=os.path.abspath(config.data.root)))
    start = config.training.start_from
    if start and not start.startswith(STORE_SCHEMES):
        config = replace(config, training=replace(config.training, start_from=os.path.abspath(start)))
    return config


def _unfinished(folder: Path, config: Config, resume: bool) -> TrainingState | None:
    """The training to go on with; one that was not ready to begin is given up if its options changed."""
    if (folder / RESULT).exists():
        forget_state(folder)  # a kill may have come between the two
        raise UserError(f"{folder} holds a finished training; choose another --out, or replace it with --fresh")
    state = recover(folder)
    changed = differences(state.config, flatten(recorded(config))) if state else []
    if state is None or (changed and not state.begun):
        if resume:
            raise CheckpointError(f"{folder} holds no unfinished training to resume")
        return None
    if changed:
        raise UserError(
            f"{folder} holds an unfinished training with another {', '.join(changed[:3])}; "
            "continue it with its own options, start over with --fresh, or choose another --out"
        )
    say(f"continuing the training in {folder} after epoch {state.epoch}")
    return state


def make_folder(config: Config, out: Path | None, fresh: bool) -> Path:
    """`out`; None: runs/NAME, or where that holds a finished training the next free one."""
    folder = out or _free_folder(Path("runs") / config.name, fresh)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); choose another --out") from None
    return folder


def _free_folder(wanted: Path, fresh: bool) -> Path:
    folder, number = wanted, 1
    while (folder / RESULT).exists() and not fresh:
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def forget_state(folder: Path) -> None:
    """Remove what only an unfinished training needs."""
    for name in (NAME, FORMER):
        (folder / name).unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove what a training writes, and nothing else that may lie in the folder."""
    for name in (RESULT, NAME, FORMER, "catalog.parquet", "config.yaml"):  # first: they say what the rest is
        (folder / name).unlink(missing_ok=True)
    for name in ("best", "last", "report", "evaluation"):
        shutil.rmtree(folder / name, ignore_errors=True)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Options in which a flat configuration differs from that of what it is to continue."""
    return [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(RESUMABLE)
    ]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Two trainings in one folder would replace each other's checkpoints. A killed one leaves no lock."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another training is running in {folder}; choose another --out") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written {refusal(error)}, or choose another --out") from None
    try:
        yield
    except OSError as error:
        if not no_room(error):
            raise
        raise UserError(f"{folder}: cannot be written {refusal(error)}; then the same command goes on") from error
    finally:
        lock.release()


def recorded(config: Config) -> dict[str, Any]:
    """The configuration as it may be kept and shown: no password of a tracking store."""
    plain = to_dict(config)
    if plain["tracking"]["uri"]:
        plain["tracking"]["uri"] = hide_password(plain["tracking"]["uri"])
    return plain
