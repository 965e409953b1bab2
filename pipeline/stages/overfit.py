"""A sanity pass before a training: can a copy of the model learn one batch by heart?

A model that cannot do that for a handful of clips will not learn from all of them, and it is known in a minute.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from pipeline.config import Config
from pipeline.data.batches import Batch
from pipeline.data.stream import view_seed
from pipeline.errors import DataError
from pipeline.model.classifier import Classifier
from pipeline.model.losses import known
from pipeline.stages.progress import bar, say
from pipeline.stages.sources import Source, epoch_order
from pipeline.stages.step import TrainStep

UPDATES, PATIENCE, MOST = 300, 100, 1500
"""So many updates at least; then until the last `PATIENCE` no longer lowered the loss by a fifth; so many at most."""
NEAR, NEAR_NUMBER = 0.05, 0.005
"""Loss that counts as learned by heart: right with a probability of 0.95; off by a tenth of a standard deviation."""
DROPPING = ("p", "zoneout", "weight_dropout", "recurrent_dropout")
"""What modules call their chance of dropping something in training."""
LEAST_RATE = 3e-3
"""A lower learning rate is raised to this: it may be right for many epochs, but not for so few updates."""


def check_overfit(model: Classifier, train: Source, config: Config, device: torch.device) -> None:
    """Train a copy of the model on the first batch alone, without anything that keeps a model from learning by heart.

    Neither the model nor any random number of the training is touched.

    Raises:
        DataError: the loss does not come near 0, with what that usually means; or there is nothing to read.
    """
    plain = _unhindered(config)
    near = NEAR_NUMBER if config.numeric else NEAR
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(view_seed(config.seed, 0))
        batch = _first_batch(train, plain)
        step = TrainStep(_copied(model), plain, device)
        step.begin(0)
        losses: list[float] = []
        with bar("learning one batch by heart", MOST) as advance:
            while _goes_on(losses, near):
                losses.append(step.train([batch])[0])
                advance(1)
    count = len(batch.targets)
    if not losses[-1] < near:
        raise DataError(
            f"{count} clips cannot be learned by heart: their loss went from {losses[0]:.3g} to {losses[-1]:.3g} in "
            f"{len(losses)} updates. Usually clips of different targets look alike to the model (video.size, "
            "video.frames, video.streams), targets are wrong, or training.learning_rate is far off; "
            "training.overfit_batch false trains all the same"
        )
    say(f"{count} clips are learned by heart in {len(losses)} updates")


def _goes_on(losses: list[float], near: float) -> bool:
    """Not learned yet, and not given up: a start from which learning is slow is no fault of the data."""
    if len(losses) < UPDATES:
        return not losses or not losses[-1] < near
    return len(losses) < MOST and not losses[-1] < near and min(losses[-PATIENCE:]) < 0.8 * min(losses[:-PATIENCE])


def _unhindered(config: Config) -> Config:
    """The whole model at constant rates, with the plain loss."""
    settings = config.training
    factor = max(1.0, LEAST_RATE / settings.learning_rate)
    training = replace(
        settings,
        learning_rate=settings.learning_rate * factor,
        encoder_learning_rate=settings.encoder_learning_rate * factor,
        weight_decay=0.0,
        label_smoothing=0.0,
        ema=0.0,
        compile=False,
    )
    return replace(config, training=training, encoder=replace(config.encoder, unfreeze_after=0))


def _copied(model: Classifier) -> Classifier:
    """The same weights without any dropout."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        for name in DROPPING:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return copied


def _first_batch(train: Source, config: Config) -> Batch:
    """The first clips of the first epoch, as the training will see them, of which one has a target."""
    order = epoch_order(train.labels, config.training.balance, config.seed, 0)
    batch = next((batch for batch in train.batches(0, order) if known(batch.targets).any()), None)
    if batch is None:
        raise DataError("no training clip with a target could be read; run: video-lstm doctor DATA")
    return batch
