"""The baseline that a recurrence must beat: pooling alone, trained on the features of a trained model's encoders."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.config import Config, flatten
from pipeline.data.catalog import Policy
from pipeline.data.splits import split_digest
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.feed import sources_for
from pipeline.stages.fit import fit
from pipeline.stages.ingest import Ingested, ingest
from pipeline.stages.predict import Predictor, load_predictor
from pipeline.stages.progress import bar, quiet
from pipeline.stages.resume import TrainingState
from pipeline.stages.run_folder import recorded
from pipeline.stages.scoring import identities

EPOCHS = 50
"""At least so many: a head learns little in the few epochs in which an encoder does."""
PLAIN: dict[str, Any] = {
    "kind": "none", "bidirectional": False, "residual": False, "proj_size": 0, "zoneout": 0.0, "weight_dropout": 0.0,
    "truncate": 0, "initialisation": "orthogonal",
}  # fmt: skip
"""What remains of the section `recurrent` without a recurrence."""


def pooling_config(config: Config, workers: int) -> Config:
    """The same training without a recurrence, its encoders as they are: `last`, which would see one moment, and
    `linear`, which weighs by time, become the mean.
    """
    recurrent = config.recurrent
    pooling = "mean" if recurrent.pooling in ("last", "linear") else recurrent.pooling
    training = replace(
        config.training,
        epochs=max(config.training.epochs, EPOCHS),
        encoder_learning_rate=0.0,
        compile=False,
        overfit_batch=False,
        workers=workers,
    )
    encoder = replace(
        config.encoder, frozen=True, unfreeze_after=0, unfreeze_blocks=0, layer_decay=1.0, stochastic_depth=0.0
    )
    views = config.augmentation.views if config.encoder.frozen else 1  # an encoder that learned has seen random views
    return replace(
        config,
        recurrent=replace(recurrent, **PLAIN, pooling=pooling),
        encoder=encoder,
        training=training,
        augmentation=replace(config.augmentation, views=views),
    )


def train_pooling(predictor: Predictor, workers: int) -> Predictor:
    """Train pooling and a linear layer on the features that the model's encoders give of its own training clips.

    The encoders are those of the checkpoint and stay as they are, also where they were trained with the recurrence; the
    epoch with the lowest validation loss is kept, as in every training. Features are kept in the feature store.

    Raises:
        UserError: the training clips are not there any more, or cannot be read.
    """
    config = pooling_config(checkpoint.config_of(predictor.card), workers)
    data = _training_data(predictor, config)
    torch.manual_seed(config.seed)
    model = build_classifier(config, len(predictor.classes), load=False)
    model.encoders.load_state_dict(predictor.model.encoders.state_dict())
    model.to(predictor.device)
    state = TrainingState(flatten(recorded(config)), data.split_digest, classes=data.classes)
    card = Card(recorded(config), predictor.classes)
    with tempfile.TemporaryDirectory() as folder, bar("training pooling", config.training.epochs) as advance, quiet():
        train, val = sources_for(config, data, model, state, predictor.device)
        fit(model, train, val, config, state, card, Path(folder), predictor.device, lambda *_: advance(1))
        return load_predictor(Path(folder) / "best", predictor.device)


def _training_data(predictor: Predictor, config: Config) -> Ingested:
    """The clips of the model's own split, found by their content; nothing else of its data."""
    policy = Policy(config.limits, config.video.partial)
    with quiet():
        data = ingest(config.data, split=False, policy=policy, task=config.task)
    table = data.table.assign(split=_splits(data.table, predictor.card))
    table = table[table["split"] != ""]
    return replace(data, table=table, classes=predictor.classes, split_digest=split_digest(table))


def _splits(table: pd.DataFrame, card: Card) -> pd.Series[str]:
    """The split of each clip as the checkpoint knows it; empty where it knows none."""
    of = {name: split for split in ("train", "val", "test") for name in card.split.get(split, [])}
    return identities(table).map(of).fillna("")
