"""The training loop: plain PyTorch, one epoch after the other, resumable after each.

Everything random is seeded from (seed, epoch), so a run that is killed and resumed goes through the same numbers as
one that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pipeline.config import Config
from pipeline.data.batches import Batch
from pipeline.data.stream import view_seed
from pipeline.errors import CheckpointError, DataError, VideoError
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier
from pipeline.model.losses import class_loss, known, number_loss
from pipeline.stages.distributed import gather, mine, place
from pipeline.stages.epoch_clock import EpochClock, StepRecord
from pipeline.stages.inside import Inside, Reading, probe_batch
from pipeline.stages.keeper import Keeper
from pipeline.stages.mixing import mixed
from pipeline.stages.optimise import set_rates
from pipeline.stages.overfit import check_overfit
from pipeline.stages.progress import bar, say
from pipeline.stages.replicas import average_statistics, total
from pipeline.stages.resume import TrainingState
from pipeline.stages.sources import Source, epoch_order
from pipeline.stages.step import TrainStep, class_weights, log_prior

EpochHook = Callable[[dict[str, float], Reading], None]


@dataclass
class Fitted:
    """How the training went.

    Attributes:
        history: one row per epoch: epoch, train_loss, val_loss, the task's validation score (val_top1,
            val_frame_accuracy or val_mae), learning_rate, gradient_norm, seconds.
        best_epoch: counted from 1.
        failed: path and reason of files that could not be read while training.
        inside: one reading per epoch, see `stages/inside.py`; with `time` and `steps`, see `stages/epoch_clock.py`.
    """

    history: list[dict[str, float]]
    best_epoch: int
    failed: dict[str, str]
    inside: list[Reading]


def fit(
    model: Classifier,
    train: Source,
    val: Source | None,
    config: Config,
    state: TrainingState,
    card: Card,
    folder: Path,
    device: torch.device,
    on_epoch: EpochHook,
) -> Fitted:
    """Train until the last epoch or until validation no longer improves.

    The folder gets `last/`, `best/` (the lowest validation loss; without a validation split the last epoch) and the
    state to resume from, together: at the end, after an epoch when the former are `SAVE_SECONDS` old, and when an
    exception ends the training. What a kill costs is computed again, to the same bits. `model` is left with the last
    weights.

    Args:
        model: on `device`.
        train, val: batches; `val` None means no validation.
        config: the whole configuration.
        state: where to start; the weights of one that has begun are read from the folder.
        card: what goes into the checkpoints beside the weights.
        folder: the run's folder.
        on_epoch: called with each row of the history and the reading beside it.

    Raises:
        DataError: the loss is not a number any more, or no clip could be read.
    """
    if config.training.overfit_batch and state.epoch == 0:
        check_overfit(model, train, config, device)
    labels, classes = train.known_targets, len(card.classes)
    step = TrainStep(model, config, device, class_weights(labels, classes, config), log_prior(labels, classes, config))
    keeper = Keeper(step, state, card, folder)
    keeper.begin()
    probe = probe_batch(train, config)
    inside = Inside(model, step.optimizer, step.loss, probe, card.classes, config.training, state.inside)
    try:
        while not (finished := _finished(state, config)):
            clock = EpochClock(model, device)
            row, steps = _epoch(step, train, val, config, state, inside, clock)
            seconds = clock.seconds()
            keeper.note(row)
            reading = inside.end(state.epoch)
            reading |= {"time": seconds, "steps": steps}
            keeper.keep()
            on_epoch(row, reading)
    except CheckpointError:
        raise
    except BaseException:  # an interruption or an error costs the unfinished epoch alone
        keeper.save()
        raise
    keeper.finish()
    say(finished)
    return Fitted(state.history, state.best_epoch, state.failed, state.inside)


def _epoch(
    step: TrainStep,
    train: Source,
    val: Source | None,
    config: Config,
    state: TrainingState,
    inside: Inside,
    clock: EpochClock,
) -> tuple[dict[str, float], list[list[float | None]]]:
    """Its row of the history, and what `StepRecord` kept."""
    started = time.perf_counter()
    epoch, settings = state.epoch, config.training
    torch.manual_seed(view_seed(config.seed, epoch, *_own_number()))
    steps = math.ceil(len(train.labels) / settings.batch_size)
    updates = math.ceil(steps / settings.accumulate)
    inside.begin(epoch, updates)
    step.begin(epoch)
    losses, norms, sizes, factor = [], [], [], 1.0
    kept = StepRecord(epoch * updates, settings.epochs * updates)
    with clock.training(), bar(f"epoch {epoch + 1}/{settings.epochs}", steps) as advance:
        for number, group in enumerate(clock.waiting(updates_of(train, config, epoch))):
            for batch in group:
                _note_failures(batch.failed, state)
            advance(len(group))
            counts = [int(known(batch.targets).sum()) for batch in group]
            if not (count := total(sum(counts), step.device)):
                continue
            factor = set_rates(step.optimizer, epoch * updates + number, updates, settings)
            loss, norm = step.train([batch for batch, count in zip(group, counts, strict=True) if count])
            if not math.isfinite(loss):
                raise DataError(
                    f"the loss is not a number in epoch {epoch + 1}; "
                    f"lower training.learning_rate (now {settings.learning_rate:g})"
                    + (", or set training.precision fp32" if step.precision == torch.float16 else "")
                )
            kept.note(loss, norm, settings.learning_rate * factor)
            losses.append(loss)
            norms.append(norm)
            sizes.append(count)
    if not sizes:
        raise DataError("no training clip with a target could be read in a whole epoch; run: video-lstm doctor DATA")
    row = {
        "epoch": epoch + 1,
        "train_loss": float(np.average(losses, weights=sizes)),
        "learning_rate": settings.learning_rate * factor,
        "gradient_norm": float(np.mean([n for n in norms if math.isfinite(n)] or [math.inf])),
    }
    average_statistics(step.model, step.model.state_dict(), *([step.average.weights] if step.average else []))
    if val is not None:
        with step.averaged():
            row |= validate(step, val, state, inside.answers)
    _note_failures_elsewhere(state)
    return row | {"seconds": time.perf_counter() - started}, kept.rows


def updates_of(train: Source, config: Config, epoch: int) -> Iterator[list[Batch]]:
    """The batches that each update of an epoch reads, some of which may be without a target; the last one has what is
    left. Of several processes each reads its part of every batch.
    """
    settings = config.training
    batches = train.batches(epoch, epoch_order(train.labels, settings.balance, config.seed, epoch), mine())
    if settings.mixup or settings.cutmix:
        batches = mixed(batches, settings, config.seed, epoch)
    return groups_of(batches, settings.accumulate)


def groups_of(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """So many batches at a time; the last group has what is left."""
    while group := list(islice(batches, size)):
        yield group


@torch.no_grad()
def validate(
    step: TrainStep, val: Source, state: TrainingState, watch: Callable[[torch.Tensor, torch.Tensor], None]
) -> dict[str, float]:
    """Loss and score of the fused prediction on the plain views of the validation clips: means over all clips, or
    over all moments, that have a target. Neither class weights nor smoothing change this loss. `watch` is shown each
    batch's answers and targets.

    Of several processes each has whole batches of its own, and the sums are made in the order of one process.
    """
    step.model.eval()
    rows = []
    for number, batch in enumerate(val.batches(0, None)):
        _note_failures(batch.failed, state)
        given = int(known(batch.targets).sum())
        if given:
            moved = batch.to(step.device)
            outputs = step.logits(moved)
            watch(step.model.combine(outputs), moved.targets)
            rows.append((place().rank + number * place().world, given, *_measure(step.model, outputs, moved.targets)))
    loss, score, count = 0.0, 0.0, 0
    for _, given, mean_loss, mean_score in sorted(row for part in gather(rows) for row in part):
        loss, score, count = loss + given * mean_loss, score + given * mean_score, count + given
    if not count:
        raise DataError("no validation clip with a target could be read; run: video-lstm doctor DATA")
    return {"val_loss": loss / count, step.score: score / count}


def _measure(model: Classifier, outputs: dict[str, torch.Tensor], targets: torch.Tensor) -> tuple[float, float]:
    """Mean loss of the streams' one answer, and its accuracy or mean absolute error, over what has a target."""
    answer, given = model.combine(outputs), known(targets)
    if model.numeric:
        errors = (answer.squeeze(-1) - targets)[given].abs()
        return float(number_loss(model.standardised(answer), model.standardised(targets))), float(errors.mean())
    right = (answer.argmax(dim=-1) == targets)[given]
    return float(class_loss(answer, targets)), float(right.double().mean())


def _finished(state: TrainingState, config: Config) -> str:
    """Why the training is over; empty while it is not."""
    if state.epoch >= config.training.epochs:
        return f"best epoch {state.best_epoch} of {state.epoch}"
    patience = config.training.patience
    if patience and state.epoch - state.best_epoch >= patience:
        return f"stopped: no better validation loss for {patience} epochs; best epoch {state.best_epoch}"
    return ""


def _note_failures(failed: list[VideoError], state: TrainingState) -> None:
    for error in failed:
        if error.path not in state.failed:
            state.failed[error.path] = str(error.reason)
            say(f"left out: {error}")


def _note_failures_elsewhere(state: TrainingState) -> None:
    """Those that other processes met."""
    for failed in gather(state.failed):
        for path, reason in failed.items():
            if path not in state.failed:
                state.failed[path] = reason
                say(f"left out: {path}: {reason}")


def _own_number() -> tuple[int, ...]:
    """What sets the dropout masks of several processes apart; nothing in the first."""
    return (place().rank,) if place().rank else ()
