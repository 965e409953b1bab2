"""Train: from a folder of labelled clips to a tested checkpoint, in one MLflow run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout

from pipeline.config import Config, flatten, to_dict
from pipeline.data import catalog, splits
from pipeline.data.batches import ClipFile
from pipeline.data.catalog import Policy
from pipeline.data.clips import Plan
from pipeline.data.features import FeatureStore
from pipeline.data.targets import classes_in
from pipeline.errors import CheckpointError, ConfigError, DataError, TrackingError, UserError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.trunk import check_name
from pipeline.report.figures import curves_figure
from pipeline.report.inside_figure import inside_figure
from pipeline.report.tables import write_json
from pipeline.report.tasks import JUDGED, TITLES, headline
from pipeline.report.text import score_text
from pipeline.report.write import write_report
from pipeline.stages import inside
from pipeline.stages.devices import choose_device, choose_workers
from pipeline.stages.evaluate import identities, score
from pipeline.stages.extract import encode_again, encoders_digest, fill, standardise, training_views
from pipeline.stages.fit import Fitted, fit
from pipeline.stages.ingest import Ingested, ingest
from pipeline.stages.inside import Reading
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import say
from pipeline.stages.resume import NAME as RESUME
from pipeline.stages.resume import TrainingState, read_state
from pipeline.stages.sources import FeatureSource, FileSource, Source
from pipeline.stages.target_notes import target_notes
from pipeline.tracking.runs import Run, start
from pipeline.tracking.store import hide_password

RESULT = "result.json"
LIBRARIES = ("torch", "torchvision", "opencv-python", "albumentations", "mlflow", "video-lstm")
RESUMABLE = ("training.device", "training.workers", "tracking.", "name")
"""Options that a resumed training may change: they decide where it runs, not what comes out."""


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        checkpoint: folder of the best checkpoint.
        run_id: MLflow run; None when tracking is off.
        test: metrics on the test split.
        folder: everything else: catalog, last checkpoint, report.
    """

    checkpoint: str
    run_id: str | None
    test: dict[str, Any]
    folder: str


def train(config: Config, out: str | Path | None = None, fresh: bool = False, resume: bool = False) -> Trained:
    """Train, evaluate and record one model.

    An unfinished training in the folder is continued, in its MLflow run; the numbers are those of a training that
    was never interrupted.

    Args:
        config: everything.
        out: the run's folder; None: runs/NAME, or the next free runs/NAME-2, -3, ...
        fresh: start over, replacing what is in the folder.
        resume: insist on continuing.

    Raises:
        UserError: whatever the user can mend: no data, a finished run in the way, a store that does not answer.
    """
    device = choose_device(config.training.device)
    _check_encoder(config)
    _check_task(config)
    if config.data.root:  # a checkpoint finds its data again from any folder
        config = replace(config, data=replace(config.data, root=os.path.abspath(config.data.root)))
    folder, state = _open_folder(config, None if out is None else Path(out), fresh, resume)
    with _locked(folder):
        return _train_in(folder, config, state, fresh, device)


def _train_in(folder: Path, config: Config, state: TrainingState | None, fresh: bool, device: torch.device) -> Trained:
    data = ingest(config.data, policy=Policy(config.limits, config.video.partial), task=config.task)
    _check_data(data, config.data.allow_leak)
    for note in target_notes(config, [file.duration for file in data.files("train")]):
        say(note)
    if state is not None and state.classes != data.classes:
        raise DataError(
            f"{folder}: the classes changed since this training began: before {', '.join(state.classes)}; "
            f"now {', '.join(data.classes)}; start over with --fresh"
        )
    if state is not None and state.data != data.split_digest:
        raise DataError(f"{folder}: the data changed since this training began; start over with --fresh")
    torch.manual_seed(config.seed)
    model = build_classifier(_with_gap(config, data), len(data.classes)).to(device)
    run = start(config.tracking, config.name, state.run_id if state else None)
    if fresh:  # not before everything that can be wrong has been found right
        _clear(folder)
    catalog.write(data.table, folder / "catalog.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(_recorded(config), sort_keys=False))
    try:
        state = state or TrainingState(flatten(_recorded(config)), data.split_digest, run.run_id, classes=data.classes)
        trained = _train_tracked(config, folder, data, model, state, run, device)
    except BaseException as error:
        with suppress(TrackingError):  # the store may be what failed; the error itself must come through
            run.tags({"failure": f"{type(error).__name__}: {error}"[:500]})
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    _attempt(lambda: run.finish("FINISHED"))
    return trained


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two trainings in one folder would replace each other's checkpoints. A killed one leaves no lock."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another training is running in {folder}; choose another --out") from None


def _recorded(config: Config) -> dict[str, Any]:
    """The configuration as it may be kept and shown: no password of a tracking store."""
    plain = to_dict(config)
    if plain["tracking"]["uri"]:
        plain["tracking"]["uri"] = hide_password(plain["tracking"]["uri"])
    return plain


def _check_encoder(config: Config) -> None:
    """What can be known to be wrong before hours of decoding."""
    check_name(config.encoder.name)
    names = config.video.stream_names
    images = "rgb" in names or ("flow" in names and config.flow.form == "image")
    if images and config.encoder.frozen and config.encoder.weights == "none":
        raise ConfigError("a frozen encoder without weights never learns; set encoder.weights, or encoder.frozen false")


def _with_gap(config: Config, data: Ingested) -> Config:
    """Chrono initialisation expects gaps as long as the longest training clip, in moments, unless told otherwise."""
    recurrent = config.recurrent
    if recurrent.initialisation != "chrono" or recurrent.chrono_steps:
        return config
    table = data.table[(data.table["split"] == "train") & (data.table["status"] == "ok")]
    steps = table["frames"].astype(int)
    if config.video.sampling == "rate":
        steps = np.minimum(steps, np.ceil(table["duration"] * config.video.fps).astype(int))
    longest = max(1, min(config.video.frames, int(steps.max())))
    say(f"chrono initialisation for gaps of up to {longest} steps, the longest training clip")
    return replace(config, recurrent=replace(recurrent, chrono_steps=longest))


def _check_task(config: Config) -> None:
    """Options that have no meaning where a clip has no class."""
    settings, task = config.training, config.task
    if settings.balance == "sampler" and task != "label":
        raise ConfigError(
            f"training.balance sampler draws clips by their class, and with task {task} a clip has none"
            + ("; balance weights weighs moments by theirs" if task == "frame_label" else "; set it to none")
        )
    for option in ("balance", "label_smoothing"):
        if config.numeric and getattr(settings, option) not in ("none", 0.0):
            raise ConfigError(f"training.{option} is about classes, and task {task} has none; leave it out")


def _open_folder(config: Config, out: Path | None, fresh: bool, resume: bool) -> tuple[Path, TrainingState | None]:
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
    changed = _changed(state.config, flatten(_recorded(config)))
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


def _clear(folder: Path) -> None:
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


def _check_data(data: Ingested, allow_leak: bool) -> None:
    if len(data.classes) == 1:
        raise DataError(f"only one class, '{data.classes[0]}': there is nothing to tell apart")
    for split in ("train", "test"):
        if not data.files(split):
            raise DataError(f"no readable clip in the {split} split; see data.{split} and video-lstm doctor DATA")
    if data.leaks and not allow_leak:
        raise DataError(
            f"{len(data.leaks)} pairs of near-duplicates lie in different splits, such as {data.leaks[0].path} and "
            f"{data.leaks[0].other}; give both one group in a list (column group), remove one, or train all the same "
            "with --data.allow_leak true"
        )
    learned = {number for file in data.files("train") for number in classes_in(file.target)}
    missing = [name for number, name in enumerate(data.classes) if number not in learned]
    if missing:
        say(f"no training clip for: {', '.join(missing)}; the model cannot learn what it never sees")


def _train_tracked(
    config: Config,
    folder: Path,
    data: Ingested,
    model: Classifier,
    state: TrainingState,
    run: Run,
    device: torch.device,
) -> Trained:
    _describe(run, config, data)
    train_source, val_source = _sources(config, data, model, state, device)
    card = _card(config, data, state)
    for row, reading in zip(state.history, state.inside, strict=True):
        _record(run, row, reading)  # safe on disk but perhaps not in the store; what it has is not sent again
    record = partial(_record, run)
    fitted = fit(model, train_source, val_source, config, state, card, folder, device, record)
    del train_source, val_source  # their workers end here, not beside those of the test
    return _finish(config, folder, data, fitted, run, device)


def _sources(
    config: Config, data: Ingested, model: Classifier, state: TrainingState, device: torch.device
) -> tuple[Source, Source | None]:
    """Where the batches come from: the feature store for a frozen encoder, the files for one that is trained."""
    plan, workers = Plan.of(config), choose_workers(config.training.workers)
    train_files, val_files = data.files("train"), data.files("val")
    store = FeatureStore()
    if not model.frozen:
        if state.epoch == 0:
            standardise(model, train_files, plan, store, "", workers, config.seed)
        settings = config.training
        train = FileSource(train_files, plan, settings, workers, config.seed)
        _fit_targets(model, train, state)
        val = FileSource(val_files, plan, settings, workers, config.seed, train.pool) if val_files else None
        return train, val
    encoders = encoders_digest(model, config.encoder.grid)
    kept: list[list[ClipFile]] = []
    for files, views in ((train_files, config.augmentation.views), (val_files, 1)):
        failed = fill(model, files, training_views(files, views), plan, store, encoders, device, workers).failed
        state.failed |= failed
        kept.append([file for file in files if file.path not in failed])
    if state.epoch == 0:
        standardise(model, kept[0], plan, store, encoders, workers, config.seed)
    batch_size, seed = config.training.batch_size, config.seed

    def again(file: ClipFile, view: int | None) -> dict[str, np.ndarray]:
        return dict(encode_again(model, file, view, plan, store, encoders, device))

    sources = [
        FeatureSource(files, training_views(files, views), store, plan, encoders, batch_size, seed, again)
        for files, views in zip(kept, (config.augmentation.views, 1), strict=True)
    ]
    _fit_targets(model, sources[0], state)
    return sources[0], sources[1] if kept[1] else None


def _fit_targets(model: Classifier, train: Source, state: TrainingState) -> None:
    """Mean and deviation of the training clips' numbers; a resumed training finds them among its weights."""
    values = train.known_targets
    if model.numeric and state.epoch == 0:
        if not len(values):
            raise DataError("no training clip has a value at any of its moments; do the list's times fit the clips?")
        model.fit_targets(float(values.mean()), float(values.std()))


def _card(config: Config, data: Ingested, state: TrainingState) -> Card:
    identity = identities(data.table)
    split = {name: identity[data.table["split"] == name].tolist() for name in ("train", "val", "test")}
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    described = {"data_digest": data.digest, "run_id": state.run_id}
    return Card(_recorded(config), data.classes, {"digest": data.split_digest, **split}, {}, versions, described)


def _describe(run: Run, config: Config, data: Ingested) -> None:
    """Everything about a run that is known before its first epoch."""
    run.params(flatten(to_dict(config)))
    report = splits.report(data.table)
    counts = json.dumps(report["counts"])
    run.tags({"dataset.digest": data.digest, "split.digest": data.split_digest, "split.class_counts": counts})
    run.tags({f"dataset.{key}": data.summary[key] for key in ("files", "ok", "failed")})
    run.text(json.dumps({"files": data.summary, "split": report}, indent=2, default=str), "data/summary.json")
    run.text(json.dumps(data.failed(), indent=2), "data/skipped.json")
    run.text(yaml.safe_dump(_recorded(config), sort_keys=False), "config.yaml")


def _record(run: Run, row: dict[str, float], reading: Reading) -> None:
    names = {
        "train_loss": "train/loss",
        "val_loss": "val/loss",
        **{judged.validation: judged.validation.replace("val_", "val/") for judged in JUDGED.values()},
        "learning_rate": "train/learning_rate",
        "gradient_norm": "train/gradient_norm",
        "seconds": "time/epoch",
    }
    metrics = {names[key]: value for key, value in row.items() if key in names} | inside.metrics(reading)
    _attempt(lambda: run.metrics(metrics, step=int(row["epoch"])))
    if reading["warnings"]:
        _attempt(lambda: run.tags({f"warning.{kind}": text for kind, text in reading["warnings"].items()}))


def _attempt(send: Callable[[], None]) -> None:
    """A store that fails in the middle costs its record, not the training: all of it is in the run's folder too."""
    try:
        send()
    except TrackingError as error:
        say(f"not recorded in MLflow: {error}")


def _finish(config: Config, folder: Path, data: Ingested, fitted: Fitted, run: Run, device: torch.device) -> Trained:
    """Score the best checkpoint on the test split, once; write the report; send all to the store."""
    model, card = checkpoint.load(folder / "best")
    predictor = Predictor(model, card, device, checkpoint.digest(folder / "best"))
    scored = score(predictor, data.table[data.table["split"] == "test"], config.training.workers)
    metrics = scored.metrics
    described = replace(card, metrics={**card.metrics, "test": headline(metrics)})
    checkpoint.save(folder / "best", model.state_dict(), described)
    report = folder / "report"
    write_report(metrics, scored.tracks, report)
    curves_figure(fitted.history, report / "curves.png", config.task)
    write_json(fitted.history, report / "history.json")
    write_json(fitted.inside, report / "inside.json")
    inside_figure(fitted.inside, report / "inside.png")
    skipped = data.failed() + [{"path": path, "reason": reason} for path, reason in fitted.failed.items()]
    write_json(skipped, report / "skipped.json")
    names = {f"test/{k}": v for k, v in headline(metrics).items() if isinstance(v, int | float)}
    _attempt(lambda: run.metrics({k: float(v) for k, v in names.items()}, step=fitted.best_epoch))
    for path, place in ((folder / "best", "checkpoint"), (report, "report"), (folder / "catalog.parquet", "data")):
        _attempt(lambda path=path, place=place: run.artifact(path, place))  # type: ignore[misc]
    trained = Trained(str(folder / "best"), run.run_id, metrics, str(folder))
    write_json({"checkpoint": trained.checkpoint, "run_id": run.run_id, "test": metrics}, folder / RESULT)
    (folder / RESUME).unlink(missing_ok=True)
    first = JUDGED[config.task].scores[0]
    say(f"test {TITLES[first]} {score_text(metrics, first)}")
    return trained
