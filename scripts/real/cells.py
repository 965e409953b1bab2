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
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import pipeline
from pipeline.config import Config, to_dict
from pipeline.data.arrays import Arrays
from pipeline.data.batches import ClipFile
from pipeline.data.catalog import Policy
from pipeline.data.clips import Plan
from pipeline.data.features import FeatureStore
from pipeline.errors import ConfigError, DataError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.devices import choose_device
from pipeline.stages.extract import encoders_digest, fill, standardise, training_views
from pipeline.stages.fit import fit
from pipeline.stages.ingest import Ingested, clip_files, ingest
from pipeline.stages.predict import Predictor
from pipeline.stages.resume import TrainingState
from pipeline.stages.sources import FeatureSource


@dataclass(frozen=True)
class Outcome:
    """The test clips of one cell.

    Attributes:
        paths, labels, groups: of the clips that were scored; labels are positions in `classes`.
        probabilities, shuffled: (N, K), the latter with each clip's moments in random order.
        failed: path and reason of the clips that were not.
        best_epoch: the epoch that validation chose.
    """

    classes: list[str]
    paths: list[str]
    labels: list[int]
    groups: list[str]
    probabilities: list[list[float]]
    shuffled: list[list[float]]
    failed: list[dict[str, str]]
    best_epoch: int


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
        ConfigError: an encoder that is trained, which has no stored features.
        DataError: near-duplicates on both sides of the split.
    """
    data = _ingested(config)
    device = choose_device(config.training.device)
    torch.manual_seed(config.seed)
    model = build_classifier(config, len(data.classes)).to(device)
    if not model.frozen:
        raise ConfigError("these tables are made from stored features: set encoder.frozen true")
    plan, store, encoders = Plan.of(config), _store(), encoders_digest(model, config.encoder.grid)
    failed = {item["path"]: item["reason"] for item in data.failed()}

    def source(split: str, views: int) -> FeatureSource:
        files = data.files(split)
        lost = fill(model, files, training_views(files, views), plan, store, encoders, device, 0).failed
        failed.update(lost)
        kept = [file for file in files if file.path not in lost]
        requests = training_views(kept, views)
        return FeatureSource(kept, requests, store, plan, encoders, config.training.batch_size, config.seed, _gone)

    with contextlib.redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        train, val, test = (source(*part) for part in (("train", config.augmentation.views), ("val", 1), ("test", 1)))
        readable = [file for file in data.files("train") if file.path not in failed]
        standardise(model, readable, plan, store, encoders, 0, config.seed)
        state = TrainingState({}, data.split_digest, None, classes=data.classes)
        card = Card(to_dict(config), data.classes)
        chosen = val if val.labels else None
        fitted = fit(model, train, chosen, config, state, card, Path(folder), device, lambda *_: None)
        predictor = Predictor(*checkpoint.load(Path(folder) / "best"), device, "")
    return _tested(predictor, data, test, failed, fitted.best_epoch)


def _gone(file: ClipFile, view: int | None) -> Arrays:
    raise DataError(f"the features of {file.path} are gone from the store; run again")


def _tested(
    predictor: Predictor, data: Ingested, test: FeatureSource, failed: dict[str, str], best_epoch: int
) -> Outcome:
    table = data.table[data.table["split"] == "test"]
    scored = table[(table["status"] == "ok") & ~table["path"].isin(set(failed))]
    ordered, shuffled = [], []
    for index in range(len(scored)):
        features = test.features(index)
        steps = len(next(iter(features.values())))
        order = np.random.default_rng([index, steps]).permutation(steps)
        ordered.append(predictor.from_features(features).tolist())
        shuffled.append(predictor.from_features({name: x[order] for name, x in features.items()}).tolist())
    lost = [{"path": path, "reason": failed[path]} for path in table["path"] if path in failed]
    return Outcome(
        data.classes, scored["path"].tolist(), test.labels, scored["unit"].tolist(), ordered, shuffled, lost, best_epoch
    )


def fill_store(config: Config, table: pd.DataFrame) -> None:
    """Compute what all cells of a configuration read, of all clips, once, before any of them starts."""
    files = clip_files(table[table["status"] == "ok"], [])
    model = build_classifier(config, 2)
    device = choose_device(config.training.device)
    requests = training_views(files, config.augmentation.views)
    plan, encoders = Plan.of(config), encoders_digest(model, config.encoder.grid)
    fill(model.to(device), files, requests, plan, FeatureStore(), encoders, device, max(config.training.workers, 0))
