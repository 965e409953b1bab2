"""What a training puts on disk while it runs: the best and the last checkpoint, and the state to go on from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.stages.distributed import is_first
from pipeline.stages.progress import say
from pipeline.stages.resume import (
    NAME,
    Sections,
    TrainingState,
    load_moments,
    moments,
    raw,
    read_sections,
    save_state,
)
from pipeline.stages.step import TrainStep

SAVE_SECONDS = 15.0
"""Age at which checkpoints and state on disk are replaced."""


@dataclass(frozen=True)
class _Moment:
    """Where a training stood after an epoch, and the weights that its two checkpoints have."""

    state: TrainingState
    sections: Sections
    last: dict[str, Tensor]
    best: dict[str, Tensor]


class Keeper:
    """Holds what a training has reached in memory, and puts it on disk now and then; of several processes one does.

    The state has the weights of both checkpoints, so either can be written again when it is found damaged.

    Args:
        step: model and optimiser.
        state: where the training stands; updated.
        card: what the checkpoints say beside the weights.
        folder: where they go.
    """

    def __init__(self, step: TrainStep, state: TrainingState, card: Card, folder: Path) -> None:
        self.step, self.state, self.card, self.folder = step, state, card, folder
        self.best: dict[str, Tensor] = {}
        self.saved = time.monotonic()
        self._held: _Moment | None = None
        self._best_kept = 0  # epoch of the best checkpoint on disk

    def begin(self) -> None:
        """Go on from the state in the folder, or put the first one there.

        Raises:
            CheckpointError: the state belongs to another model, or the disk refuses.
        """
        if not is_first():
            self.state.begun = True
        elif self.state.begun:
            self._restore(read_sections(self.folder))
            self._mend()
        else:
            self.state.begun = True
            moment = self._moment(copy=False)
            save_state(self.folder, moment.state, moment.sections)
        self.step.take_over(self.state)

    def note(self, row: dict[str, float]) -> None:
        """Count an epoch as done, and remember its weights if they are the best."""
        state, loss = self.state, row.get("val_loss")
        state.epoch += 1
        state.history.append(row)
        improved = loss is None or state.best_loss is None or loss < state.best_loss
        if improved:
            state.best_loss, state.best_epoch = loss, state.epoch
            self.best = {name: x.detach().cpu().clone() for name, x in self.step.kept().items()}

    def keep(self) -> None:
        """After an epoch: save, or hold a copy where that was done a moment ago.

        An epoch on stored features takes less time than a save; the copy is what an interruption puts on disk.
        """
        if not is_first():
            return
        due = time.monotonic() - self.saved > SAVE_SECONDS
        self._held = self._moment(copy=not due)
        self._announce()  # not before: what is said to be done is not lost
        if due:
            self.save()

    def save(self) -> None:
        """Put the last finished epoch on disk, if it is not there yet: the checkpoints, then the state that names them.

        Raises:
            CheckpointError: the disk refuses; what was there is intact.
        """
        if self._held is None:
            return
        state, best = self._held.state, self._held.best
        last = {name: x.detach().cpu() for name, x in self._held.last.items()}
        if state.best_epoch != self._best_kept:
            self._checkpoint(state, "best", best)
            self._best_kept = state.best_epoch
        self._checkpoint(state, "last", last)
        # what the best has in common with the last, as the tensors of a frozen encoder, is not kept twice
        other = {name: x for name, x in best.items() if not torch.equal(raw(x), raw(last[name]))}
        save_state(self.folder, state, self._held.sections | {"best": other})
        self._held, self.saved = None, time.monotonic()

    def finish(self) -> None:
        """Save, and make sure that both checkpoints are what the training came to."""
        if is_first():
            self.save()
            self._mend()

    def _announce(self) -> None:
        state, row = self.state, self.state.history[-1]
        loss = row.get("val_loss")
        scores = f"  val loss {loss:.3f}  {self.step.title} {row[self.step.score]:.3f}" if loss is not None else ""
        mark = "  best" if state.best_epoch == state.epoch else ""
        say(f"epoch {state.epoch:3d}  train loss {row['train_loss']:.3f}{scores}  {row['seconds']:.1f} s{mark}")

    def _moment(self, copy: bool) -> _Moment:
        """Now; the tensors of one without `copy` are those of the model, which the next epoch changes."""
        state, step = self.state, self.step
        state.loss_scale = step.scaler.state_dict()
        sections = {"model": step.model.state_dict(), "optimizer": moments(step.optimizer)}
        if step.average is not None:
            sections["average"] = step.average.tensors()
        last = step.kept()
        if copy:
            last = self._copied(last)
            sections = {name: self._copied(tensors) for name, tensors in sections.items()}
        lists: dict[str, Any] = {"history": [*state.history], "inside": [*state.inside], "failed": {**state.failed}}
        return _Moment(replace(state, **lists), sections, last, self.best)

    def _copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All but the tensors of a frozen encoder, which nothing changes."""
        frozen = self.step.model.frozen
        return {
            name: x if frozen and name.startswith("encoders.") else x.detach().cpu().clone()
            for name, x in tensors.items()
        }

    def _checkpoint(self, state: TrainingState, name: str, weights: Mapping[str, Tensor]) -> None:
        """Write one of the two, and its digest into the state."""
        epoch = state.best_epoch if name == "best" else state.epoch
        row = state.history[epoch - 1]
        measured = {key: row[key] for key in ("val_loss", self.step.score) if key in row}
        card = replace(self.card, metrics=measured, extra={**self.card.extra, "epoch": epoch})
        checkpoint.save(self.folder / name, weights, card)
        state.checkpoints[name] = checkpoint.digest(self.folder / name)

    def _restore(self, sections: Sections) -> None:
        """Model, average, optimiser, loss scale and best weights as they were."""
        step, state = self.step, self.state
        try:
            step.model.load_state_dict(sections.get("model", {}))
            load_moments(step.optimizer, sections.get("optimizer", {}))
            if step.average is not None:
                step.average.load(sections.get("average", {}))
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{self.folder / NAME} does not fit this model ({reason}); start over with --fresh"
            ) from None
        step.scaler.load_state_dict(state.loss_scale or step.scaler.state_dict())
        if state.best_epoch:
            last = {name: x.detach().cpu().clone() for name, x in step.kept().items()}
            self.best, self._best_kept = last | sections.get("best", {}), state.best_epoch

    def _mend(self) -> None:
        """Write again what is not the checkpoint that the state names: damaged, or of an epoch whose state was never
        written, or tested and not marked as finished.
        """
        weights = {"best": self.best, "last": self.step.kept()}
        for name, digest in self.state.checkpoints.items():
            folder, found = self.folder / name, ""
            with suppress(CheckpointError, OSError):
                found = checkpoint.digest(folder)
            if found == digest:
                continue
            try:
                checkpoint.check(folder)
            except CheckpointError as error:
                say(f"{error}; it is written again")
            self._checkpoint(self.state, name, weights[name])
