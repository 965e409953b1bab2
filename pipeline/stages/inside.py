"""Looking inside a model while it trains: on one fixed batch, beside the optimisation, which it does not touch.

Everything comes out as plain values, ready for JSON; `pipeline/stages/alarms.py` says what they warn of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.config import Config, TrainingConfig
from pipeline.data.batches import Batch
from pipeline.model.branch import Branch
from pipeline.model.classifier import Classifier
from pipeline.model.inside import copies, look, parameter_groups, update_ratios
from pipeline.stages.alarms import alarms
from pipeline.stages.distributed import gather, place
from pipeline.stages.progress import say
from pipeline.stages.sources import Source, epoch_order

CLIPS = 8
"""Clips of the batch that is looked at."""
EVERY = 40
"""Updates between two looks at least: a look costs as much as one or two."""

Reading = dict[str, Any]
"""One epoch, as `Inside.end` describes it."""


class Inside:
    """Looks into a model once per epoch, or once in `EVERY` updates where epochs are shorter, and at the end.

    Args:
        model: what is trained.
        optimizer: its updates are measured, the first of each epoch that is looked at.
        objective: a stream's logits and the batch's targets to the loss, a mean over the batch.
        probe: the batch; None: only updates and predictions are looked at.
        classes: their names; empty where numbers are predicted.
        settings: the last epoch is looked at; the warm-up's predictions raise no alarm.
        readings: those of the epochs that are over; new ones are added.
    """

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        objective: Callable[[Tensor, Tensor], Tensor],
        probe: Batch | None,
        classes: Sequence[str],
        settings: TrainingConfig,
        readings: list[Reading],
    ) -> None:
        self.model, self.objective, self.probe = model, objective, probe
        self.classes, self.readings = classes, readings
        self.epochs, self.warmup = settings.epochs, settings.warmup
        self.raised = {kind for reading in readings for kind in reading["warnings"]}
        self._groups = parameter_groups(model)
        self._due = False
        self._before: dict[str, list[Tensor]] = {}
        self._updates: dict[str, float] = {}
        self._answers: list[tuple[Tensor, Tensor]] = []
        optimizer.register_step_pre_hook(lambda *_: self._before_update())
        optimizer.register_step_post_hook(lambda *_: self._after_update())

    def begin(self, epoch: int, steps: int) -> None:
        """Before the first of an epoch's `steps` updates; `epoch` is counted from 0."""
        self._due = due(epoch, steps) or epoch + 1 == self.epochs
        self._updates, self._answers = {}, []

    def answers(self, logits: Tensor, targets: Tensor) -> None:
        """What the model answers to validation clips: logits (B, K) or (B, T, K), targets (B) or (B, T)."""
        valid = targets >= 0 if self.classes else targets.isfinite()
        given = logits.argmax(-1) if self.classes else logits.squeeze(-1)
        self._answers.append((given[valid].cpu(), targets[valid].cpu()))

    def end(self, epoch: int) -> Reading:
        """After an epoch, counted from 1: what was seen, also added to the readings. New warnings are said.

        Returns:
            epoch; layers (by name, `pipeline.model.inside.Layer` as a dictionary) and updates (by parameter group),
            both empty where the epoch was not looked at; seconds_per_step, of the probe's clips; answers, see
            `summarised`; warnings, the new ones by kind. A number that is not finite is None.
        """
        seen = {
            "epoch": epoch,
            "layers": self._look() if self._due else {},
            "updates": self._updates,
            "seconds_per_step": None if self.probe is None else seconds_per_step(self.probe),
            "answers": summarised(_of_all(self._answers), self.classes),
        }
        reading: Reading = finite(seen)
        recent = [*self.readings, reading]
        found = alarms([r for r in recent if r["layers"]][-2:], recent[-2:], self.warmup)
        reading["warnings"] = {kind: text for kind, text in found.items() if kind not in self.raised}
        self.raised |= found.keys()
        self.readings.append(reading)
        for text in reading["warnings"].values():
            say(f"warning: {text}")
        return reading

    def _before_update(self) -> None:
        if self._due and not self._updates:
            self._before = copies(self._groups)

    def _after_update(self) -> None:
        if self._before:
            self._updates = update_ratios(self._before, self._groups)
            self._before = {}

    def _look(self) -> dict[str, Any]:
        if self.probe is None:
            return {}
        training = self.model.training
        self.model.eval()
        batch = self.probe.to(next(self.model.parameters()).device)
        with torch.no_grad():
            features = self.model.encode(batch.inputs, batch.lengths)
        layers: dict[str, Any] = {}
        for stream in self.model.streams:
            branch = cast(Branch, self.model.branches[stream])
            seen = look(branch, features[stream], batch.lengths, lambda logits: self.objective(logits, batch.targets))
            prefix = f"{stream}/" if len(self.model.streams) > 1 else ""
            layers |= {f"{prefix}{name}": asdict(layer) for name, layer in seen.items()}
        self.model.train(training)
        return layers


def _of_all(answers: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Those that every process saw of its own validation clips."""
    if place().world == 1:
        return answers
    plain = [(given.tolist(), targets.tolist()) for given, targets in answers]
    return [(torch.tensor(given), torch.tensor(targets)) for part in gather(plain) for given, targets in part]


def probe_batch(train: Source, config: Config) -> Batch | None:
    """A batch of at most `CLIPS` training clips of all classes: the first that the first epoch reads.

    A function of the seed, so that a resumed training looks at the same. None where none of them can be read.
    """
    order = epoch_order(train.labels, config.training.balance, config.seed, 0)[:CLIPS]
    return next((batch for batch in list(train.batches(0, order)) if len(batch.targets)), None)


def due(epoch: int, steps: int) -> bool:
    """Whether to look after this epoch (from 0) of so many updates: after the first, and each time that `EVERY` updates
    have been made.
    """
    return epoch == 0 or epoch * steps // EVERY < (epoch + 1) * steps // EVERY


def seconds_per_step(batch: Batch) -> float | None:
    """Mean distance in seconds of a clip's neighbouring moments; None where each clip has one moment."""
    longer = batch.lengths > 1
    if not longer.any():
        return None
    last = batch.times.gather(1, (batch.lengths - 1).unsqueeze(1)).squeeze(1)
    span = (last - batch.times[:, 0])[longer] / (batch.lengths[longer] - 1)
    return float(span.mean())


def summarised(answers: Sequence[tuple[Tensor, Tensor]], classes: Sequence[str]) -> dict[str, Any]:
    """How uniform the answers to the validation clips are.

    Returns:
        With classes: `most` (the class that is answered most), `share` (of the answers) and `true_share` (the largest
        share of any class among the targets). With numbers: `spread`, the deviation of the answers over that of the
        targets. Empty without validation.
    """
    if not answers or not sum(len(given) for given, _ in answers):
        return {}
    given, targets = (torch.cat(parts) for parts in zip(*answers, strict=True))
    if not classes:
        true = float(targets.double().std(correction=0))
        return {"spread": float(given.double().std(correction=0)) / true} if true > 0 else {}
    counts, true_counts = (torch.bincount(x, minlength=len(classes)) for x in (given, targets))
    most = int(counts.argmax())
    share, true_share = (float(x.max()) / len(given) for x in (counts, true_counts))
    return {"most": classes[most], "share": share, "true_share": true_share}


def metrics(reading: Reading) -> dict[str, float]:
    """A reading as flat numbers under the names of docs/tracking.md; what is None is left out."""
    found: dict[str, Any] = {}
    for name, layer in reading["layers"].items():
        first, last = layer["first"], layer["last"]
        found[f"gradients/{name}/first_step"], found[f"gradients/{name}/last_step"] = first, last
        found[f"gradients/{name}/first_over_last"] = first / last if last and first is not None else None
        for gate, numbers in layer["gates"].items():
            found |= {f"gates/{name}/{gate}_{key}": numbers[key] for key in ("mean", "closed", "open")}
        half, spacing = layer["half_life"], reading["seconds_per_step"]
        found[f"gates/{name}/half_life_frames"] = half
        found[f"gates/{name}/half_life_seconds"] = half * spacing if half is not None and spacing else None
    found |= {f"updates/{name}": ratio for name, ratio in reading["updates"].items()}
    found |= {f"val/answers_{key}": value for key, value in reading["answers"].items() if key in ("share", "spread")}
    return {name: value for name, value in found.items() if value is not None}


def finite(value: Any) -> Any:
    """Nested plain values as JSON can hold them: None for a number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
