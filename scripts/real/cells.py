"""One cell of a table: train one fold, and predict its test clips in order and with their moments shuffled.

It is what `video-lstm train --data.fold` does, by the same functions and to the same numbers, without what a table has
no use for: MLflow, pictures, and decoding the test clips again for every cell.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real import memory

import pipeline
from pipeline.config import Config, to_dict
from pipeline.data.arrays import Arrays
from pipeline.data.catalog import Policy
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import ClipInputs, Plan
from pipeline.data.features import FeatureStore
from pipeline.data.turned import with_turned
from pipeline.errors import DataError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.stages.calibrate import calibrate
from pipeline.stages.devices import choose_device
from pipeline.stages.extract import encoders_digest, fill, standardise, training_views
from pipeline.stages.feed import fresh, sources_for
from pipeline.stages.fit import fit
from pipeline.stages.ingest import Ingested, clip_files, ingest
from pipeline.stages.predict import Predictor
from pipeline.stages.resume import TrainingState
from pipeline.stages.sources import FeatureSource, Source
from pipeline.stages.start import begin_model

Answer = Callable[[Predictor, bool], dict[str, list[float]]]
"""From a model, and whether the moments are shuffled, to the probabilities of each test clip that can be read."""


@dataclass(frozen=True)
class Outcome:
    """The test clips of one cell.

    Attributes:
        paths, labels, groups: of the clips that were scored; labels are positions in `classes`.
        probabilities, shuffled: (N, K), the latter with each clip's moments in random order.
        failed: path and reason of the clips that were not.
        best_epoch: the epoch that validation chose.
        epoch_seconds: median of its epochs.
        peak_memory: MB while it trained, see `memory.peak`.
    """

    classes: list[str]
    paths: list[str]
    labels: list[int]
    groups: list[str]
    probabilities: list[list[float]]
    shuffled: list[list[float]]
    failed: list[dict[str, str]]
    best_epoch: int
    epoch_seconds: float
    peak_memory: float | None


class _Memory(FeatureStore):
    """A store that keeps in memory what it read: the cells of one process read the same features again and again."""

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[str, Arrays] = {}

    def get(self, key: str) -> Arrays | None:
        if key not in self._read:
            found = super().get(key)
            if found is None:
                return None
            self._read[key] = {name: np.array(values) for name, values in found.items()}
        return self._read[key]


@lru_cache(maxsize=1)
def _store() -> _Memory:
    return _Memory()


_INGESTED: dict[str, Ingested] = {}


def _ingested(config: Config) -> Ingested:
    key = repr((config.data, config.limits, config.video.partial))
    if key not in _INGESTED:
        with contextlib.redirect_stderr(io.StringIO()):
            data = ingest(config.data, policy=Policy(config.limits, config.video.partial))
        if data.leaks:
            one = data.leaks[0]
            raise DataError(f"{config.data.root}: {one.path} looks like {one.other}; give both one group")
        _INGESTED[key] = data
    return _INGESTED[key]


def run_all(configs: Sequence[Config], data: str, folder: Path, processes: int) -> Iterator[tuple[int, Outcome]]:
    """Position and outcome of each cell as it is finished; finished ones are read from `folder`, and others put there.

    A cell's file is named after its configuration, the digest of its data and the versions: delete the folder after
    changing code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{_name(config, data)}.json" for config in configs]
    waiting = []
    for index, file in enumerate(files):
        if file.exists():
            yield index, Outcome(**json.loads(file.read_text()))
        else:
            waiting.append(index)
    if processes == 1 or len(waiting) < 2:
        for index in waiting:
            yield index, run_and_keep(configs[index], files[index])
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = {pool.submit(run_and_keep, configs[index], files[index]): index for index in waiting}
        for future in as_completed(running):
            yield running[future], future.result()


def run_and_keep(config: Config, file: Path) -> Outcome:
    """Run a cell and write its outcome, at once or not at all."""
    outcome = run_cell(config)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(outcome)))
    temporary.replace(file)
    return outcome


def _name(config: Config, data: str) -> str:
    plain = to_dict(config)
    del plain["tracking"], plain["name"]
    plain["data"]["root"] = data
    parts = [plain, pipeline.__version__, torch.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def run_cell(config: Config) -> Outcome:
    """Train on the fold `config.data.fold`, choose the epoch by validation, predict the test clips.

    Raises:
        DataError: near-duplicates on both sides of the split.
    """
    data = _ingested(config)
    device = choose_device(config.training.device)
    torch.manual_seed(config.seed)
    model, origin = begin_model(config, data, None)
    model.to(device)
    state = TrainingState({}, data.split_digest, None, classes=data.classes, origin=origin)
    memory.reset(device)
    with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        prepare = _stored if model.frozen else _decoded
        train, val, answer = prepare(config, data, model, state, device)
        card = Card(to_dict(config), data.classes)
        fitted = fit(model, train, val, config, state, card, Path(folder), device, lambda *_: None)
        calibrate(Path(folder) / "best", val, device)
        predictor = Predictor(*checkpoint.load(Path(folder) / "best"), device, "")
        peak = memory.peak(device)
        ordered, shuffled = answer(predictor, False), answer(predictor, True)
    table = data.table[data.table["split"] == "test"]
    failed = {item["path"]: item["reason"] for item in data.failed()} | state.failed
    scored = table[table["path"].isin(set(ordered))]
    return Outcome(
        data.classes,
        scored["path"].tolist(),
        [data.classes.index(label) for label in scored["label"]],
        scored["unit"].tolist(),
        [ordered[path] for path in scored["path"]],
        [shuffled[path] for path in scored["path"]],
        [{"path": path, "reason": failed[path]} for path in table["path"] if path not in set(ordered)],
        fitted.best_epoch,
        statistics.median(row["seconds"] for row in fitted.history),
        peak,
    )


def _stored(
    config: Config, data: Ingested, model: Classifier, state: TrainingState, device: torch.device
) -> tuple[Source, Source | None, Answer]:
    """From the feature store; the test clips too, whose moments need not be decoded to be shuffled."""
    plan, store, encoders = Plan.of(config), _store(), encoders_digest(model, config.encoder.grid)

    def source(split: str, views: int) -> tuple[list[ClipFile], FeatureSource]:
        files = with_turned(data.files(split), config.augmentation, data.classes)
        state.failed |= fill(model, files, training_views(files, views), plan, store, encoders, device, 0).failed
        kept = [file for file in files if file.path not in state.failed]
        requests, size = training_views(kept, views), config.training.batch_size
        return kept, FeatureSource(kept, requests, store, plan, encoders, size, config.seed, _gone)

    (learned, train), (_, val), (tested, test) = (
        source(*part) for part in (("train", config.augmentation.views), ("val", 1), ("test", 1))
    )
    if fresh(state):
        standardise(model, learned, plan, store, encoders, 0, config.seed)

    def answer(predictor: Predictor, shuffle: bool) -> dict[str, list[float]]:
        clips = [ClipInputs(test.features(index), test.moments(index)) for index in range(len(tested))]
        return {
            file.path: (predictor.answer_shuffled(clip, file.digest) if shuffle else predictor.answer(clip)).tolist()
            for file, clip in zip(tested, clips, strict=True)
        }

    return train, val if val.labels else None, answer


def _decoded(
    config: Config, data: Ingested, model: Classifier, state: TrainingState, device: torch.device
) -> tuple[Source, Source | None, Answer]:
    """From the files, for an encoder that is trained."""
    train, val = sources_for(config, data, model, state, device)

    def answer(predictor: Predictor, shuffle: bool) -> dict[str, list[float]]:
        found = {}
        for prediction in predictor.predict(data.files("test"), max(config.training.workers, 0), shuffle=shuffle):
            if prediction.error is not None:
                state.failed[prediction.path] = str(prediction.error.reason)
            elif prediction.probabilities is not None:
                found[prediction.path] = prediction.probabilities.tolist()
        return found

    return train, val, answer


def _gone(file: ClipFile, view: int | None) -> Arrays:
    raise DataError(f"the features of {file.path} are gone from the store; run again")


def fill_store(config: Config, table: pd.DataFrame) -> None:
    """Compute what all cells of a configuration read, of all clips, once, before any of them starts; an encoder that
    is trained reads the files.
    """
    if config.image_streams and not config.encoder.frozen:
        return
    files = clip_files(table[table["status"] == "ok"], [])
    model = build_classifier(config, 2)
    device = choose_device(config.training.device)
    requests = training_views(files, config.augmentation.views)
    plan, encoders = Plan.of(config), encoders_digest(model, config.encoder.grid)
    fill(model.to(device), files, requests, plan, FeatureStore(), encoders, device, max(config.training.workers, 0))
