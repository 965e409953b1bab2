"""The training loop: plain PyTorch, one epoch after the other, resumable after each.

Everything random is seeded from (seed, epoch), so a run that is killed and resumed goes through the same numbers as
one that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.config import Config
from pipeline.data.batches import Batch, view_seed
from pipeline.errors import DataError, VideoError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier
from pipeline.model.losses import class_loss, known, number_loss
from pipeline.report.tasks import JUDGED
from pipeline.stages.devices import choose_precision
from pipeline.stages.inside import Inside, Reading, probe_batch
from pipeline.stages.progress import bar, say
from pipeline.stages.resume import TrainingState, read_state, restore, save_state
from pipeline.stages.sources import Source, epoch_order

SAVE_SECONDS = 15.0
"""Age at which checkpoints and state on disk are replaced."""

EpochHook = Callable[[dict[str, float], Reading], None]


@dataclass
class Fitted:
    """How the training went.

    Attributes:
        history: one row per epoch: epoch, train_loss, val_loss, the task's validation score (val_top1,
            val_frame_accuracy or val_mae), learning_rate, gradient_norm, seconds.
        best_epoch: counted from 1.
        failed: path and reason of files that could not be read while training.
        inside: one reading per epoch, see `stages/inside.py`.
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
    state to resume from, together: at the end, and after an epoch when the former are `SAVE_SECONDS` old. What a kill
    costs is computed again, to the same bits. `model` is left with the last weights.

    Args:
        model: on `device`.
        train, val: batches; `val` None means no validation.
        config: the whole configuration.
        state: where to start; `restore` is called for a state past the first epoch.
        card: what goes into the checkpoints beside the weights.
        folder: the run's folder.
        on_epoch: called with each row of the history and the reading beside it.

    Raises:
        DataError: the loss is not a number any more, or no clip could be read.
    """
    step = _Step(model, config, device, class_weights(train.known_targets, len(card.classes), config))
    if read_state(folder) is not None:
        restore(folder, model, step.optimizer)
        step.scaler.load_state_dict(state.loss_scale or step.scaler.state_dict())
    else:
        save_state(folder, state, model, step.optimizer)
    keeper = _Keeper(step, state, card, folder)
    probe = probe_batch(train, config)
    inside = Inside(model, step.optimizer, step.loss, probe, card.classes, config.training, state.inside)
    try:
        while not (finished := _finished(state, config)):
            row = _epoch(step, train, val, config, state, inside)
            keeper.note(row)
            on_epoch(row, inside.end(state.epoch))
            keeper.save_if_old()
    except KeyboardInterrupt:
        keeper.save_best()
        raise
    keeper.save()
    say(finished)
    return Fitted(state.history, state.best_epoch, state.failed, state.inside)


def class_weights(labels: Sequence[int] | NDArray[Any], classes: int, config: Config) -> torch.Tensor | None:
    """float32 (K), inverse to how often a class occurs, 1 on average over the clips, or over the labelled moments
    where each has a label; None if not asked for.
    """
    if config.training.balance != "weights":
        return None
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    return torch.tensor(len(labels) / (np.count_nonzero(np.bincount(labels)) * counts), dtype=torch.float32)


class _Step:
    """Model, optimiser, precision: what one step of training needs."""

    def __init__(self, model: Classifier, config: Config, device: torch.device, weights: torch.Tensor | None) -> None:
        self.model = model
        self.device = device
        self.precision = choose_precision(config.training.precision, device)
        self.clip_norm = config.training.clip_norm or math.inf
        self.optimizer = _optimizer(model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.weights = None if weights is None else weights.to(device)
        self.smoothing = config.training.label_smoothing
        self.score, self.title = JUDGED[config.task].validation, JUDGED[config.task].title

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def logits(self, batch: Batch) -> dict[str, torch.Tensor]:
        with self.autocast():
            features = self.model.encode(batch.inputs, batch.lengths)
            return {k: v.float() for k, v in self.model.branch_logits(features, batch.lengths).items()}

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of one stream's outputs, over what has a target."""
        if self.model.numeric:
            return number_loss(outputs, self.model.standardised(targets))
        return class_loss(outputs, targets, self.weights, self.smoothing)

    def train(self, batch: Batch) -> tuple[float, float]:
        """One update; the loss and the gradient's norm before clipping.

        Each stream learns from its own loss: late fusion is between networks that stand on their own.
        """
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.logits(batch)
        loss = torch.stack([self.loss(x, batch.targets) for x in logits.values()]).mean()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach()), float(norm)


def _optimizer(model: Classifier, config: Config) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices alone, the encoder at its own rate."""
    settings = config.training
    encoder_rate = settings.encoder_learning_rate or settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = encoder_rate if name.startswith("encoders.") else settings.learning_rate
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]
    )


def rate_factor(step: int, steps_per_epoch: int, epochs: int, warmup: float) -> float:
    """Share of the peak learning rate at a step counted from 0: linear warm-up, then a cosine towards 0."""
    total = steps_per_epoch * epochs
    rising = min(steps_per_epoch * warmup, total / 2)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


def _epoch(
    step: _Step, train: Source, val: Source | None, config: Config, state: TrainingState, inside: Inside
) -> dict[str, float]:
    started = time.perf_counter()
    epoch, settings = state.epoch, config.training
    torch.manual_seed(view_seed(config.seed, epoch))
    order = epoch_order(train.labels, settings.balance, config.seed, epoch)
    steps = math.ceil(len(order) / settings.batch_size)
    inside.begin(epoch, steps)
    step.model.train()
    losses, norms, sizes, factor = [], [], [], 1.0
    with bar(f"epoch {epoch + 1}/{settings.epochs}", steps) as advance:
        for number, batch in enumerate(train.batches(epoch, order)):
            _note_failures(batch.failed, state)
            advance(1)
            if not (count := int(known(batch.targets).sum())):
                continue
            factor = rate_factor(epoch * steps + number, steps, settings.epochs, settings.warmup)
            for group in step.optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            loss, norm = step.train(batch.to(step.device))
            if not math.isfinite(loss):
                raise DataError(
                    f"the loss is not a number in epoch {epoch + 1}; "
                    f"lower training.learning_rate (now {settings.learning_rate:g})"
                )
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
    if val is not None:
        row |= validate(step, val, state, inside.answers)
    return row | {"seconds": time.perf_counter() - started}


@torch.no_grad()
def validate(
    step: _Step, val: Source, state: TrainingState, watch: Callable[[torch.Tensor, torch.Tensor], None]
) -> dict[str, float]:
    """Loss and score of the fused prediction on the plain views of the validation clips: means over all clips, or
    over all moments, that have a target. Neither class weights nor smoothing change this loss. `watch` is shown each
    batch's answers and targets.
    """
    step.model.eval()
    loss, score, count = 0.0, 0.0, 0
    for batch in val.batches(0, None):
        _note_failures(batch.failed, state)
        here = int(known(batch.targets).sum())
        if here:
            moved = batch.to(step.device)
            outputs = step.logits(moved)
            watch(step.model.combine(outputs), moved.targets)
            mean_loss, mean_score = _measure(step.model, outputs, moved.targets)
            loss, score, count = loss + here * mean_loss, score + here * mean_score, count + here
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


class _Keeper:
    """Holds the best weights of the training so far, and puts everything on disk now and then.

    Args:
        step: model and optimiser.
        state: where the training stands; updated.
        card: what the checkpoints say beside the weights.
        folder: where they go.
    """

    def __init__(self, step: _Step, state: TrainingState, card: Card, folder: Path) -> None:
        self.step, self.state, self.card, self.folder = step, state, card, folder
        self.best: tuple[dict[str, torch.Tensor], Card] | None = None
        self.saved = time.monotonic()

    def note(self, row: dict[str, float]) -> None:
        """Count an epoch as done, and remember its weights if they are the best."""
        state, loss = self.state, row.get("val_loss")
        state.epoch += 1
        state.history.append(row)
        improved = loss is None or state.best_loss is None or loss < state.best_loss
        if improved:
            state.best_loss, state.best_epoch = loss, state.epoch
            weights = {name: x.detach().cpu().clone() for name, x in self.step.model.state_dict().items()}
            self.best = (weights, self._described())
        scores = f"  val loss {loss:.3f}  {self.step.title} {row[self.step.score]:.3f}" if loss is not None else ""
        mark = "  best" if improved else ""
        say(f"epoch {state.epoch:3d}  train loss {row['train_loss']:.3f}{scores}  {row['seconds']:.1f} s{mark}")

    def save_if_old(self) -> None:
        """Save unless that was done a moment ago: an epoch on stored features takes less time than a save."""
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """The checkpoints first, then the state that says they are there."""
        self.save_best()
        checkpoint.save(self.folder / "last", self.step.model.state_dict(), self._described())
        self.state.loss_scale = self.step.scaler.state_dict()
        save_state(self.folder, self.state, self.step.model, self.step.optimizer)
        self.saved = time.monotonic()

    def save_best(self) -> None:
        """The best weights alone: whole at any moment, where the model may be in the middle of an epoch."""
        if self.best is not None:
            weights, card = self.best
            checkpoint.save(self.folder / "best", weights, card)
            self.best = None

    def _described(self) -> Card:
        row = self.state.history[-1] if self.state.history else {}
        measured: dict[str, Any] = {name: row[name] for name in ("val_loss", self.step.score) if name in row}
        return replace(self.card, metrics=measured, extra={**self.card.extra, "epoch": self.state.epoch})


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
