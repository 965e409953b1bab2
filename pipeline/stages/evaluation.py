"""The command `evaluate`: which folder the report goes to, and what the model's MLflow run gets."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.config import DataConfig, TrackingConfig
from pipeline.errors import TrackingError
from pipeline.model import checkpoint
from pipeline.report.tasks import headline
from pipeline.stages.distributed import is_first
from pipeline.stages.evaluate import Wanted, Which, evaluate
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import say
from pipeline.stages.run_folder import RESULT
from pipeline.tracking.evaluations import EVALUATIONS, FinishedRun

Track = Literal["auto", "yes", "no"]
EVALUATION = "evaluation"
"""Folder of the reports, in that of a training or in the current one."""


def evaluate_and_record(
    predictor: Predictor,
    data: DataConfig | None,
    split: Which = "test",
    out: Path | None = None,
    workers: int = -1,
    shuffle: bool = False,
    wanted: Wanted | None = None,
    track: Track = "auto",
    uri: str | None = None,
) -> dict[str, Any]:
    """`evaluate` with a report in any case, which the model's MLflow run gets too.

    Args:
        predictor: the model.
        data, split, workers, shuffle, wanted: see `evaluate`.
        out: folder of the report; None: `report_folder`.
        track: auto: record it in the model's run where there is one and its store answers; yes: insist on it; no: leave
            the store alone.
        uri: the store; None: the one the model was trained with, else the default one.

    Returns:
        The metrics, with `report`: the folder.

    Raises:
        TrackingError: the run or its store is not there, and `track` is yes.
    """
    wanted = wanted or Wanted()
    run = find_run(predictor, track, uri) if is_first() else None
    out = out or report_folder(predictor, data, split, shuffle)
    metrics = evaluate(predictor, data, split, out, workers, shuffle, wanted, run, command_of(shuffle, wanted))
    if run is not None:
        _record(run, metrics, out, track)
    return metrics | {"report": str(out)}


def find_run(predictor: Predictor, track: Track, uri: str | None) -> FinishedRun | None:
    """The run that the model was trained in; None where it has none, or it is not there.

    Raises:
        TrackingError: so it is, and `track` is yes.
    """
    if track == "no":
        return None
    run_id = predictor.card.extra.get("run_id")
    if not run_id:
        if track == "yes":
            raise TrackingError("this model was trained without an MLflow run, so there is none to record to")
        return None
    trained = checkpoint.config_of(predictor.card).tracking.uri
    kept = None if trained is None or "***" in trained else trained  # a checkpoint keeps no password
    try:
        return FinishedRun(TrackingConfig(uri=uri or kept), str(run_id))
    except TrackingError as error:
        if track == "yes":
            raise
        say(f"not recorded in MLflow: {error}")
        return None


def report_folder(predictor: Predictor, data: DataConfig | None, split: str, shuffle: bool) -> Path:
    """Where a report goes that nobody named a place for: evaluation/WHAT in the folder of the training.

    In the current one for a model that lies elsewhere, or where nothing can be written. WHAT is the split, or the name
    of other data.
    """
    what = split if data is None else Path(data.root or "data").resolve().stem
    what += "-shuffled" if shuffle else ""
    home = predictor.folder.resolve().parent if predictor.folder else None
    if home is not None and (home / RESULT).exists() and os.access(home, os.W_OK):
        return home / EVALUATION / what
    return Path(EVALUATION) / f"{predictor.card.config.get('name', 'model')}-{what}"


def command_of(shuffle: bool, wanted: Wanted) -> str:
    """What a reading of the test split is noted as."""
    options = {
        "--shuffle": shuffle, f"--views {wanted.views}": wanted.views > 1, "--mirror": wanted.mirror,
        "--time": wanted.time, "--robustness": wanted.robustness,
    }  # fmt: skip
    return " ".join(["evaluate", *(name for name, given in options.items() if given)])


def _record(run: FinishedRun, metrics: dict[str, Any], out: Path, track: Track) -> None:
    """The report as artifacts of the run, under a folder of its own; the numbers as metrics `evaluate/...`, the n-th
    evaluation as step n of the readings.
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    numbers = {f"evaluate/{key}": float(x) for key, x in headline(metrics).items() if isinstance(x, int | float)}
    if "calibration" in metrics:
        numbers["evaluate/ece"] = metrics["calibration"]["after"]["ece"]
    try:
        run.artifacts(out, f"{EVALUATIONS}/{now}-{out.name}")
        run.metrics(numbers, step=len(metrics.get("readings", [])))
    except TrackingError as error:
        if track == "yes":
            raise
        say(f"not recorded in MLflow: {error}")
