"""What a sweep came to: tables, pictures, the best checkpoint; in its folder and in its MLflow run."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import to_dict
from pipeline.config.sweep import SweepConfig
from pipeline.errors import CheckpointError, TrackingError
from pipeline.report.sweep_figures import history_figure, importance_figure
from pipeline.report.tables import csv_table, text_table, write_json
from pipeline.report.text import print_metrics
from pipeline.stages.progress import say
from pipeline.stages.run_folder import RESULT, recorded
from pipeline.stages.sweep.space import Value
from pipeline.stages.sweep.study import Study, Trial
from pipeline.tracking.runs import Run
from pipeline.tracking.store import hide_password

STATES = ("finished", "pruned", "failed")
FILES = ("sweep.yaml", "trials.csv", "history.png", "importance.png", "importance.json", RESULT)
"""In a sweep's folder, beside `best/` and `trials/`."""


@dataclass(frozen=True)
class Swept:
    """What a sweep came to.

    Attributes:
        best: {trial, value, params, checkpoint, run_id, test}: `value` is the metric on the validation clips, `test`
            the metrics on the test split.
        trials: how many finished, were pruned, failed.
        folder: all there is to know; as MODEL on the command line it is the best checkpoint.
        metric: what trials were compared by.
        minimise: less of it is better.
        rows: the trials, in their order.
        registered: address of the version in MLflow's registry; None: none was asked for.
    """

    best: dict[str, Any]
    trials: dict[str, int]
    folder: str
    metric: str
    minimise: bool
    rows: list[Trial]
    registered: str | None = None


def conclude(study: Study, metric: str, folder: Path, best_folder: Path, run: Run, test: dict[str, Any]) -> Swept:
    """Write all that is left to write, when the trials are over and one of them finished.

    Args:
        study: all that is known of the trials.
        metric: what they were compared by.
        folder: of the sweep.
        best_folder: of the best trial.
        run: of the sweep.
        test: metrics of the best trial on the test split.

    Raises:
        CheckpointError, DataError: the folder cannot be written to.
    """
    rows, best = study.trials(), study.best()
    assert best is not None
    _copy(best_folder / "best", folder / "best")
    counts = Counter(trial.state for trial in rows)
    found = {"trial": best.number, "value": best.value, "params": best.values, "checkpoint": str(folder / "best")}
    found |= {"run_id": best.run_id, "test": test}
    swept = Swept(found, {s: counts[s] for s in STATES}, str(folder), metric, study.minimise, rows)
    _write(study, swept)
    try:
        run.tags({"best.trial": best.number, "best.run_id": best.run_id})
        run.tags({f"best.{option}": value for option, value in best.values.items()})
        run.metrics({f"trials/{state}": count for state, count in swept.trials.items()}, step=len(rows))
        for name in FILES:
            if (folder / name).exists():
                run.artifact(folder / name)
    except TrackingError as error:
        say(f"not recorded in MLflow: {error}")
    return swept


def clear(folder: Path) -> None:
    """Remove what a sweep writes, but not its study, and nothing else that may lie in the folder."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for name in ("trials", "best"):
        shutil.rmtree(folder / name, ignore_errors=True)


def sweep_text(swept: Swept) -> str:
    """For a terminal: the trials, best ones first, and the test of the best one."""
    sign = 1 if swept.minimise else -1
    order = {"finished": 0, "pruned": 1, "failed": 2, "running": 3}
    rows = sorted(swept.rows, key=lambda row: (order[row.state], sign * (row.value or 0.0), row.number))
    options = list(swept.best["params"])
    header = ["trial", "state", swept.metric, "epochs", *options]
    cells = [
        [
            str(row.number),
            row.state,
            value_text(row.value),
            str(row.epochs),
            *(value_text(row.values.get(o)) for o in options),
        ]
        for row in rows
    ]
    reasons = [f"trial {row.number}: {row.reason}" for row in rows if row.reason]
    lines = [text_table(header, cells), *(["", *reasons] if reasons else []), ""]
    test = swept.best["test"]
    lines += [f"test of trial {swept.best['trial']}, the best:", print_metrics(test) if test else "data.test is 0", ""]
    lines += [f"checkpoint  {swept.best['checkpoint']}", f"folder      {swept.folder}"]
    return "\n".join(lines + ([f"registered  {swept.registered}"] if swept.registered else []))


def values_text(values: Mapping[str, Value]) -> str:
    """`learning_rate=0.001 hidden=64`, each by the last part of its name."""
    return "  ".join(f"{name}={value_text(value)}" for name, value in values.items())


def value_text(value: Value) -> str:
    """A number with four digits; nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(study: Study, swept: Swept) -> None:
    folder = Path(swept.folder)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(_recorded(study.config), sort_keys=False))
    columns = ["trial", "state", "value", "epochs", "seconds", *swept.best["params"], "run_id", "reason"]
    csv_table([_row(trial) for trial in swept.rows], columns, folder / "trials.csv")
    plain = [(trial.number, trial.state, trial.value) for trial in swept.rows]
    history_figure(plain, swept.metric, swept.minimise, folder / "history.png")
    shares = study.importance()
    for name in ("importance.png", "importance.json"):  # of a sweep that had fewer trials
        (folder / name).unlink(missing_ok=True)
    if shares:
        write_json(shares, folder / "importance.json")
        importance_figure(shares, swept.metric, swept.trials["finished"], folder / "importance.png")
    written = {key: value for key, value in asdict(swept).items() if key in ("best", "trials", "metric")}
    write_json(written, folder / RESULT)


def _row(trial: Trial) -> dict[str, Any]:
    named = {key: getattr(trial, key) for key in ("state", "value", "epochs", "seconds", "run_id", "reason")}
    return {"trial": trial.number, **named, **trial.values}


def _recorded(config: SweepConfig) -> dict[str, Any]:
    """The sweep's configuration as it may be kept and shown, ready to be run again."""
    storage = None if config.storage is None else hide_password(config.storage)
    return to_dict(config) | {"base": recorded(config.base), "storage": storage}


def _copy(source: Path, target: Path) -> None:
    """Replace a checkpoint by another one; a kill leaves one of them whole."""
    new, old = target.with_name(".best.new"), target.with_name(".best.old")
    try:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(source, new)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written ({error}); is the disk full?") from None
