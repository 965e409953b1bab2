"""Sync: what MLflow has missed, sent from where it waits on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.stages.progress import bar
from pipeline.tracking.outbox import found_in, glance
from pipeline.tracking.resend import Resent, resend


@dataclass(frozen=True)
class Synced:
    """What a sync came to.

    Attributes:
        folder: where it looked.
        runs: those that had something to send, in the order in which they began.
    """

    folder: str
    runs: list[Resent]

    @property
    def left(self) -> int:
        """Entries that wait still."""
        return sum(run.left for run in self.runs)


def sync(folder: str | Path = "runs", uri: str | None = None) -> Synced:
    """Send what waits in a folder and all below it, each run's entries in order, to the stores they are for.

    Args:
        folder: of a run, or of many.
        uri: another store to send to.

    Raises:
        UserError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a run's folder, or one with runs below it")
    found, away = found_in(folder), dict[str, str]()
    with bar("sending", sum(glance(path)[1] for path in found)) as advance:
        runs = [resend(path, uri, advance, away) for path in found]
    return Synced(str(folder), [run for run in runs if run.waited or run.error])


def as_json(result: Synced) -> dict[str, Any]:
    """What `sync --json` prints."""
    runs = [asdict(run) | {"left": run.left} for run in result.runs]
    return {"folder": result.folder, "sent": sum(run.sent for run in result.runs), "left": result.left, "runs": runs}


def sync_text(result: Synced) -> str:
    """For a terminal."""
    lines = []
    for run in result.runs:
        told = f"{run.sent} of {run.waited} entries sent"
        told += f" to {run.store}" if run.sent else ""
        told += f", run {run.run_id}" if run.run_id else ""
        told += f"; {run.left} wait: {run.error}" if run.left else ""
        lines += [f"{run.folder}: {told}", *(f"  refused: {reason}" for reason in run.refused)]
    return "\n".join(lines or [f"nothing waits in {result.folder}"])
