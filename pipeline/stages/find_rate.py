"""The learning-rate range test: a throw-away model is trained at rates that rise from nothing until it breaks.

Smith, Cyclical Learning Rates for Training Neural Networks (2017), section 3.3; with rates that rise exponentially.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import Config, flatten
from pipeline.data.batches import Batch
from pipeline.data.catalog import Policy
from pipeline.data.stream import view_seed
from pipeline.errors import DataError
from pipeline.model.losses import known
from pipeline.report.rate_figure import rate_figure
from pipeline.report.tables import write_json
from pipeline.stages.checks import check_data, check_encoder, check_task, with_gap
from pipeline.stages.devices import choose_device
from pipeline.stages.distributed import alone
from pipeline.stages.feed import sources_for
from pipeline.stages.fit import updates_of
from pipeline.stages.ingest import ingest
from pipeline.stages.progress import bar
from pipeline.stages.resume import TrainingState
from pipeline.stages.run_folder import locked, make_folder, recorded
from pipeline.stages.sources import Source
from pipeline.stages.start import begin_model
from pipeline.stages.step import TrainStep, class_weights, log_prior

LOWEST, HIGHEST = 1e-6, 1.0
"""First and last rate of the head; the encoder's rates keep their ratio to it."""
UPDATES = 120
"""Updates of the test: 20 for each power of ten."""
SMOOTHING = 3.0
"""Standard deviation, in updates, of the Gaussian that the losses are smoothed with."""
BROKEN, FEW = 3.0, 5
"""Times the mean of the first few losses that the mean of the last few must exceed for the test to end early."""


@dataclass(frozen=True)
class FoundRate:
    """What the range test saw.

    Attributes:
        rates: of the head, one per update.
        losses: before each update.
        smoothed: the same without most of their noise.
        suggestion: for `training.learning_rate`; None: no rate lowers the loss.
        folder: of the training, where the report lies.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None
    folder: str


def find_rate(config: Config, out: str | Path | None = None) -> FoundRate:
    """Test learning rates on the batches that a training would read; nothing is trained and no weights are kept.

    Writes `report/learning_rate.png` and `.json` into the folder that the training would have, which stays free for it.
    With folds it tests the first one.

    Raises:
        UserError: as in `train`.
    """
    alone("the range test")
    if config.data.folds and not config.data.fold:  # one training stands for all
        config = replace(config, data=replace(config.data, fold=1))
    device = choose_device(config.training.device)
    check_encoder(config)
    check_task(config)
    folder = make_folder(config, None if out is None else Path(out), fresh=False)
    with locked(folder):
        data = ingest(config.data, policy=Policy(config.limits, config.video.partial), task=config.task)
        check_data(data, config.data)
        torch.manual_seed(config.seed)
        model, origin = begin_model(with_gap(config, data), data, None)
        model.to(device)
        nowhere = TrainingState(flatten(recorded(config)), data.split_digest, origin=origin)
        train, _ = sources_for(config, data, model, nowhere, device)
        labels, classes = train.known_targets, len(data.classes)
        prior = log_prior(labels, classes, config)
        step = TrainStep(model, config, device, class_weights(labels, classes, config), prior)
        rates, losses = range_test(step, train, config)
        smoothed = smooth(losses)
        found = FoundRate(rates, losses, smoothed.tolist(), suggested(rates, losses), str(folder))
        write_json(asdict(found), folder / "report/learning_rate.json")
        rate_figure(rates, losses, found.smoothed, found.suggestion, folder / "report/learning_rate.png")
    return found


def range_test(step: TrainStep, train: Source, config: Config) -> tuple[list[float], list[float]]:
    """Rates and losses, one per update, up to the rate that breaks the model.

    Raises:
        DataError: no clip with a target could be read, or the very first loss is not a number.
    """
    step.begin(0)
    rates: list[float] = []
    losses: list[float] = []
    with bar("testing learning rates", UPDATES) as advance:
        for number, batches in zip(range(UPDATES), _endless(train, config), strict=False):
            rate = LOWEST * (HIGHEST / LOWEST) ** (number / (UPDATES - 1))
            for group in step.optimizer.param_groups:
                group["lr"] = rate * group["peak"] / config.training.learning_rate
            loss, _ = step.train(batches)
            advance(1)
            if not math.isfinite(loss):
                break
            rates.append(rate)
            losses.append(loss)
            if number > UPDATES / 2 and np.mean(losses[-FEW:]) > BROKEN * np.mean(losses[:FEW]):
                break
    if not losses:
        raise DataError("the first loss is not a number; see what the clips hold: video-lstm doctor DATA")
    return rates, losses


def _endless(train: Source, config: Config) -> Iterator[list[Batch]]:
    """What update after update reads, epoch after epoch."""
    for epoch in count():
        torch.manual_seed(view_seed(config.seed, epoch))
        readable = False
        for group in updates_of(train, config, epoch):
            if batches := [batch for batch in group if known(batch.targets).any()]:
                readable = True
                yield batches
        if not readable:
            raise DataError("no training clip with a target could be read; run: video-lstm doctor DATA")


def smooth(losses: Sequence[float]) -> NDArray[np.float64]:
    """A Gaussian mean over neighbouring updates, which at the ends has those on one side alone."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places) / SMOOTHING) ** 2)
    return (weights @ np.asarray(losses, dtype=np.float64)) / weights.sum(1)


def suggested(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the loss falls most steeply per power of ten, at most a tenth of the one where it is lowest.

    None where the loss falls by less than it varies from batch to batch.
    """
    smoothed = smooth(losses)
    lowest = int(smoothed.argmin())
    noise = float(np.std(np.asarray(losses)[: lowest + 1] - smoothed[: lowest + 1]))
    if lowest < 2 or smoothed[0] - smoothed[lowest] <= 2 * noise:
        return None
    slope = np.gradient(smoothed[: lowest + 1], np.log10(rates[: lowest + 1]))
    return float(min(rates[int(slope.argmin())], rates[lowest] / 10))
