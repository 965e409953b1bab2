"""Train: from a folder of labelled clips to a tested checkpoint, in one MLflow run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import yaml

from pipeline.config import Config, flatten
from pipeline.data import catalog
from pipeline.data.catalog import Policy
from pipeline.data.moments import usual_sampling
from pipeline.disk import replacing
from pipeline.errors import DataError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier
from pipeline.model.readings import as_json
from pipeline.report.figures import curves_figure
from pipeline.report.inside_figure import inside_figure
from pipeline.report.tables import write_json
from pipeline.report.tasks import JUDGED, TITLES, headline
from pipeline.report.text import score_text
from pipeline.report.write import write_report
from pipeline.stages.calibrate import calibrate
from pipeline.stages.checks import check_data, check_encoder, check_task, with_gap
from pipeline.stages.devices import choose_device
from pipeline.stages.distributed import is_first, joined
from pipeline.stages.examine import examine
from pipeline.stages.feed import sources_for
from pipeline.stages.fit import EpochHook, Fitted, fit
from pipeline.stages.ingest import Ingested, ingest
from pipeline.stages.inside import Reading
from pipeline.stages.mistakes import film_strips
from pipeline.stages.predict import Predictor, load_predictor
from pipeline.stages.progress import say
from pipeline.stages.readings import note_reading, reading_of
from pipeline.stages.record import (
    MEASURED,
    Stages,
    all_warnings,
    describe,
    publish,
    record_epoch,
    summary_note,
    write_epochs,
)
from pipeline.stages.reference import test_reference, training_reference
from pipeline.stages.resume import TrainingState, save_state
from pipeline.stages.rows import result_row
from pipeline.stages.run_folder import RESULT, clear, forget_state, locked, opened, recorded, rooted
from pipeline.stages.scoring import Scored, identities, score
from pipeline.stages.start import begin_model
from pipeline.stages.target_notes import target_notes
from pipeline.tracking.environment import record_environment
from pipeline.tracking.evaluations import READINGS_PLACE
from pipeline.tracking.runs import Run, end_early, start
from pipeline.tracking.store import load_ahead
from pipeline.tracking.system import system_metrics

LIBRARIES = ("torch", "torchvision", "opencv-python", "albumentations", "mlflow", "video-lstm")


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        checkpoint: folder of the best checkpoint.
        run_id: MLflow run; None when tracking is off.
        test: metrics on the test split; empty where it was left for later, or there is none (`data.test` 0).
        folder: everything else: catalog, last checkpoint, report.
    """

    checkpoint: str
    run_id: str | None
    test: dict[str, Any]
    folder: str


class Pruned(Exception):  # noqa: N818  (nothing went wrong)
    """Raised by `on_epoch`: others do better, so this training is given up. Its run ends as KILLED, with a tag."""


def train(
    config: Config,
    out: str | Path | None = None,
    fresh: bool = False,
    resume: bool = False,
    parent: str | None = None,
    on_epoch: EpochHook | None = None,
    test: bool = True,
) -> Trained:
    """Train, evaluate and record one model; in several processes where `torchrun` started them.

    An unfinished training in the folder is continued, in its MLflow run; the numbers are those of a training that
    was never interrupted.

    Args:
        config: everything.
        out: the run's folder; None: runs/NAME, or the next free runs/NAME-2, -3, ...
        fresh: start over, replacing what is in the folder.
        resume: insist on continuing.
        parent: MLflow run that this one is a part of.
        on_epoch: called after each epoch with its row of the history and the reading beside it, and again after the
            last one where a training goes on; what it raises ends the training.
        test: False: leave the test split alone, for a training among others of which one will be chosen by its
            validation score; `test_trained` makes up for it.

    Raises:
        Pruned: if `on_epoch` did.
        UserError: whatever the user can mend: no data, a finished run in the way, a store that does not answer.
    """
    device = choose_device(config.training.device)
    check_encoder(config)
    check_task(config)
    config = rooted(config)
    with joined(device), opened(config, None if out is None else Path(out), fresh, resume) as (folder, state):
        return _train_in(folder, config, state, fresh, device, parent, on_epoch, test)


def test_trained(config: Config, folder: str | Path) -> dict[str, Any]:
    """Score a training that left its test for later: into its folder, its checkpoint and its MLflow run.

    Args:
        config: of that training.
        folder: of that training.

    Returns:
        Metrics on the test split, empty if there is none; those of the first time if this is not the first.

    Raises:
        UserError: the data is not there any more, or the store does not answer.
    """
    folder = Path(folder)
    with locked(folder):
        result = json.loads((folder / RESULT).read_text())
        if result["test"]:
            return dict(result["test"])
        data = ingest(config.data, policy=Policy(config.limits, config.video.partial), task=config.task)
        if not (data.table["split"] == "test").any():
            return {}
        tracking = replace(config.tracking, enabled=result["run_id"] is not None)
        run = start(tracking, config.name, result["run_id"], folder=folder)
        metrics = _test(config, folder, data, run, choose_device(config.training.device))
        publish(run, folder, config.tracking.artifacts)
        _close(folder, run, Trained(result["checkpoint"], run.run_id, metrics, str(folder)))
    return metrics


def _train_in(
    folder: Path,
    config: Config,
    state: TrainingState | None,
    fresh: bool,
    device: torch.device,
    parent: str | None,
    on_epoch: EpochHook | None,
    test: bool,
) -> Trained:
    load_ahead(config.tracking)
    stages = Stages()
    with stages("ingest"):
        data = ingest(config.data, policy=Policy(config.limits, config.video.partial), task=config.task)
    check_data(data, config.data)
    test = test and bool((data.table["split"] == "test").any())
    for note in target_notes(config, [file.duration for file in data.files("train")]):
        say(note)
    if state is not None:
        state = _same_data(state, data, folder)
    torch.manual_seed(config.seed)
    model, origin = begin_model(with_gap(config, data), data, state)
    model.to(device)
    if state is None:
        state = TrainingState(flatten(recorded(config)), data.split_digest, classes=data.classes, key=uuid4().hex)
        if is_first() and not fresh:
            save_state(folder, state, {})  # by its key, a run is found whose identifier a kill kept from the folder
    state.origin = origin
    run = start(config.tracking, config.name, state.run_id, parent, state.key, folder)
    state.run_id = run.run_id or state.run_id
    try:
        if is_first():
            _prepare(folder, config, data, state, fresh)
        with system_metrics(run, config.tracking.system_seconds):
            trained = _train_tracked(config, folder, data, model, state, run, device, on_epoch, test, stages)
    except Pruned as given_up:
        tags = {"pruned": str(given_up)}
        run.tags(tags)
        run.finish("KILLED")
        raise
    except BaseException as error:
        end_early(run, error, preempted=f"after epoch {state.epoch}")
        raise
    _close(folder, run, trained)
    return trained


def _prepare(folder: Path, config: Config, data: Ingested, state: TrainingState, fresh: bool) -> None:
    """What the folder has before the first epoch."""
    if fresh:  # not before everything that can be wrong has been found right
        clear(folder)
    if not state.begun:
        save_state(folder, state, {})
    catalog.write(data.table, folder / "catalog.parquet")
    with replacing(folder / "config.yaml") as path:
        path.write_text(yaml.safe_dump(recorded(config), sort_keys=False))


def _same_data(state: TrainingState, data: Ingested, folder: Path) -> TrainingState | None:
    """The state, if it belongs to this data; None for one that had not begun, which has nothing to lose."""
    if state.classes == data.classes and state.data == data.split_digest:
        return state
    if not state.begun:
        return None
    if state.classes != data.classes:
        raise DataError(
            f"{folder}: the classes changed since this training began: before {', '.join(state.classes)}; "
            f"now {', '.join(data.classes)}; start over with --fresh"
        )
    raise DataError(f"{folder}: the data changed since this training began; start over with --fresh")


def _train_tracked(
    config: Config,
    folder: Path,
    data: Ingested,
    model: Classifier,
    state: TrainingState,
    run: Run,
    device: torch.device,
    on_epoch: EpochHook | None,
    test: bool,
    stages: Stages,
) -> Trained:
    begun = state.epoch
    describe(run, config, data)
    record_environment(run, "train", begun)
    with stages("extract"):
        train_source, val_source = sources_for(config, data, model, state, device)
    run.metrics(stages.metrics(), begun)
    card = _card(config, data, state)
    for row, reading in zip(state.history, state.inside, strict=True):
        record_epoch(run, row, reading)  # safe on disk but perhaps not in the store; what it has is not sent again

    def record(row: dict[str, float], reading: Reading) -> None:
        record_epoch(run, row, reading)
        if on_epoch is not None:
            on_epoch(row, reading)

    if state.history and on_epoch is not None:
        on_epoch(state.history[-1], state.inside[-1])  # the answer may have been given to a process that was killed
    with stages("fit"):
        fitted = fit(model, train_source, val_source, config, state, card, folder, device, record)
    with stages("calibrate"):
        calibrate(folder / "best", val_source, device)
    del train_source, val_source  # their workers end here, not beside those of the test
    trained = _finish(config, folder, data, fitted, run, device, test, stages)
    run.metrics(stages.metrics(), begun)
    first = JUDGED[config.task].scores[0]
    score = f"test {TITLES[first]} {score_text(trained.test, first)}" if trained.test else ""
    run.note(summary_note(data, stages, score, all_warnings(state.inside)))
    return trained


def _card(config: Config, data: Ingested, state: TrainingState) -> Card:
    identity = identities(data.table)
    split: dict[str, Any] = {name: identity[data.table["split"] == name].tolist() for name in ("train", "val", "test")}
    if state.origin:
        split["before"] = {name: state.origin[name] for name in ("train", "val")}
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    rate, length = usual_sampling([file.times for file in data.files("train") if file.times is not None], config.video)
    stream = {"rate": rate, "length": length}  # what `watch` and `tune_watch` go by
    reference = {"train": training_reference(data.table)}
    described = {"data_digest": data.digest, "run_id": state.run_id, "stream": stream, "reference": reference}
    if state.origin:
        described["start"] = {name: state.origin[name] for name in ("model", "digest")}
    return Card(recorded(config), data.classes, {"digest": data.split_digest, **split}, {}, versions, described)


def _finish(
    config: Config,
    folder: Path,
    data: Ingested,
    fitted: Fitted,
    run: Run,
    device: torch.device,
    test: bool,
    stages: Stages,
) -> Trained:
    """Test the best checkpoint, once; write the report; send all to the store."""
    with stages("test"):
        metrics = _test(config, folder, data, run, device) if test else {}
    trained = Trained(str(folder / "best"), run.run_id, metrics, str(folder))
    if not is_first():
        return trained
    with stages("report"):
        _report(config, folder / "report", data, fitted)
    with stages("publish"):
        publish(run, folder, config.tracking.artifacts)
    return trained


def _report(config: Config, report: Path, data: Ingested, fitted: Fitted) -> None:
    """What is known of the training itself."""
    curves_figure(fitted.history, report / "curves.png", config.task)
    write_json(fitted.history, report / "history.json")
    seen = [{key: x for key, x in reading.items() if key not in MEASURED} for reading in fitted.inside]
    write_json(seen, report / "inside.json")
    write_epochs(fitted.inside, report)
    inside_figure(fitted.inside, report / "inside.png")
    skipped = data.failed() + [{"path": path, "reason": reason} for path, reason in fitted.failed.items()]
    write_json(skipped, report / "skipped.json")


def _test(config: Config, folder: Path, data: Ingested, run: Run, device: torch.device) -> dict[str, Any]:
    """Score the best checkpoint on the test split; its report, what the checkpoint says, and the run's numbers."""
    predictor = load_predictor(folder / "best", device)
    scored = score(predictor, data.table[data.table["split"] == "test"], config.training.workers)
    metrics, card = scored.metrics, predictor.card
    if not is_first():
        return metrics
    rows = [result_row(answer, predictor, 1) for answer in scored.predictions]
    extra = {**card.extra, "reference": {**card.extra.get("reference", {}), "test": test_reference(rows)}}
    described = replace(card, metrics={**card.metrics, "test": headline(metrics)}, extra=extra)
    checkpoint.save(folder / "best", predictor.model.state_dict(), described)
    _report_test(config, folder, predictor, scored, run)
    names = {f"test/{k}": float(v) for k, v in headline(metrics).items() if isinstance(v, int | float)}
    run.metrics(names, step=card.extra["epoch"])
    first = JUDGED[config.task].scores[0]
    say(f"test {TITLES[first]} {score_text(metrics, first)}")
    return metrics


def _report_test(config: Config, folder: Path, predictor: Predictor, scored: Scored, run: Run) -> None:
    """The report of the test, as `evaluate` writes it; the reading of the test split beside the checkpoint."""
    digest = checkpoint.digest(folder / "best")
    reading = reading_of(predictor.card, scored.metrics, "train", scored.metrics["n"], digest)
    readings = note_reading(reading, folder / "best", None)
    run.text(as_json(readings), READINGS_PLACE)
    run.tags({"test.readings": len(readings), "test.last_reading": f"{reading.time} train"})
    metrics = scored.metrics | {"split": "test", "data": str(config.data.root), "model": digest}
    metrics |= examine(predictor, scored) | {"readings": [asdict(one) for one in readings]}
    if "calibration" in metrics:
        error = {"test/ece": metrics["calibration"]["after"]["ece"]}
        run.metrics(error, step=predictor.card.extra["epoch"])
    strips = film_strips(scored, metrics.get("mistakes", []), config.training.workers)
    write_report(metrics, scored.tracks, folder / "report", strips, config.name)


def _close(folder: Path, run: Run, trained: Trained) -> None:
    """End the run; then the folder's result, which says that all is done: a kill before it costs the test alone."""
    if not is_first():
        return
    run.finish("FINISHED")
    result = {"checkpoint": trained.checkpoint, "run_id": trained.run_id, "test": trained.test}
    write_json(result, folder / RESULT)
    forget_state(folder)
