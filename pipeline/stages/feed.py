"""Sources of a training: the feature store for a frozen encoder, the files for one that is trained."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.config import Config
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.features import FeatureStore
from pipeline.data.turned import with_turned
from pipeline.errors import DataError
from pipeline.model.classifier import Classifier
from pipeline.stages.devices import choose_workers
from pipeline.stages.distributed import is_first, mine
from pipeline.stages.extract import encode_again, encoders_digest, fill, standardise, training_views
from pipeline.stages.ingest import Ingested
from pipeline.stages.resume import TrainingState
from pipeline.stages.sources import FeatureSource, FileSource, Source, in_batches


def sources_for(
    config: Config, data: Ingested, model: Classifier, state: TrainingState, device: torch.device
) -> tuple[Source, Source | None]:
    """Where the batches come from: the feature store for a frozen encoder, the files for one that is trained.

    Of several processes each has all training clips, of which it reads its part of every batch, and whole batches of
    the validation clips. What is fitted to the data, the first one has; a model that started from another one, or goes
    on, has it already.
    """
    plan, workers = Plan.of(config), choose_workers(config.training.workers)
    train_files, val_files = with_turned(data.files("train"), config.augmentation, data.classes), data.files("val")
    store = FeatureStore()
    if not model.frozen:
        if fresh(state) and is_first():
            standardise(model, train_files, plan, store, "", workers, config.seed)
        settings = config.training
        train = FileSource(train_files, plan, settings, workers, config.seed, device=device)
        _fit_targets(model, train, state)
        own = _own_batches(val_files, settings.batch_size)
        val = FileSource(own, plan, settings, workers, config.seed, train.pool, device) if val_files else None
        return train, val
    encoders = encoders_digest(model, config.encoder.grid)
    kept: list[list[ClipFile]] = []
    for files, views in ((train_files, config.augmentation.views), (val_files, 1)):
        failed = fill(model, files, training_views(files, views), plan, store, encoders, device, workers).failed
        state.failed |= failed
        kept.append([file for file in files if file.path not in failed])
    if fresh(state) and is_first():
        standardise(model, kept[0], plan, store, encoders, workers, config.seed)
    batch_size, seed = config.training.batch_size, config.seed

    def again(file: ClipFile, view: int | None) -> dict[str, np.ndarray]:
        return dict(encode_again(model, file, view, plan, store, encoders, device))

    sources = [
        FeatureSource(files, training_views(files, views), store, plan, encoders, batch_size, seed, again)
        for files, views in ((kept[0], config.augmentation.views), (_own_batches(kept[1], batch_size), 1))
    ]
    _fit_targets(model, sources[0], state)
    return sources[0], sources[1] if kept[1] else None


def fresh(state: TrainingState) -> bool:
    """Whether the model has yet to be fitted to the mean and deviation of its data."""
    return state.epoch == 0 and not state.origin


def _own_batches(files: list[ClipFile], batch_size: int) -> list[ClipFile]:
    """The files of this process's batches, which stay the batches of one process."""
    return [file for batch in in_batches(files, batch_size)[mine()] for file in batch]


def _fit_targets(model: Classifier, train: Source, state: TrainingState) -> None:
    """Mean and deviation of the training clips' numbers."""
    values = train.known_targets
    if model.numeric and not len(values):
        raise DataError("no training clip has a value at any of its moments; do the list's times fit the clips?")
    if model.numeric and fresh(state):
        model.fit_targets(float(values.mean()), float(values.std()))
