"""What a training puts on disk while it runs: the best and the last checkpoint, and the state to go on from."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.stages.progress import say
from pipeline.stages.resume import TrainingState, save_state
from pipeline.stages.step import TrainStep

SAVE_SECONDS = 15.0
"""Age at which checkpoints and state on disk are replaced."""


class Keeper:
    """Holds the best weights of the training so far, and puts everything on disk now and then.

    Args:
        step: model and optimiser.
        state: where the training stands; updated.
        card: what the checkpoints say beside the weights.
        folder: where they go.
    """

    def __init__(self, step: TrainStep, state: TrainingState, card: Card, folder: Path) -> None:
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
            weights = {name: x.detach().cpu().clone() for name, x in self.step.kept().items()}
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
        checkpoint.save(self.folder / "last", self.step.kept(), self._described())
        self.state.loss_scale = self.step.scaler.state_dict()
        save_state(self.folder, self.state, self.step.model, self.step.optimizer, self.step.average)
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
