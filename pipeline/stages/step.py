"""One update of a training: logits, loss, gradient, optimiser, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.config import Config
from pipeline.data.batches import Batch
from pipeline.model.classifier import Classifier
from pipeline.model.encoder import Encoder
from pipeline.model.losses import class_loss, known, mixed_class_loss, number_loss
from pipeline.report.tasks import JUDGED
from pipeline.stages.average import Average
from pipeline.stages.devices import choose_precision
from pipeline.stages.mixing import MixedBatch
from pipeline.stages.optimise import optimizer_for
from pipeline.stages.replicas import share_state, sum_gradients, total
from pipeline.stages.resume import TrainingState


class TrainStep:
    """Model, optimiser, precision: what one step of training needs.

    Args:
        model: on `device`.
        config: the whole configuration.
        device: where it computes.
        weights: float32 (K), of the classes in the loss; None: each clip or moment weighs the same.
        prior: float32 (K), added to the logits in the loss; None: nothing.

    Attributes:
        average: the moving average of the weights; None where none is wanted.
    """

    def __init__(
        self,
        model: Classifier,
        config: Config,
        device: torch.device,
        weights: torch.Tensor | None = None,
        prior: torch.Tensor | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = choose_precision(config.training.precision, device)
        self.clip_norm = config.training.clip_norm or math.inf
        # found once: to walk through a frozen encoder took a third of each update on stored features
        self.learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = optimizer_for(model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        still = tuple(f"encoders.{name}." for name in model.encoders if config.encoder.frozen)
        self.average = Average(model, config.training.ema, still) if config.training.ema else None
        self.weights = None if weights is None else weights.to(device)
        self.prior = None if prior is None else prior.to(device)
        if config.training.compile:
            for encoder in model.encoders.values():
                cast(Encoder, encoder).compile_trunk()
        self.unfreeze_after = config.encoder.unfreeze_after
        self.smoothing = config.training.label_smoothing
        self.score, self.title = JUDGED[config.task].validation, JUDGED[config.task].title

    def begin(self, epoch: int) -> None:
        """Ready the model to learn in an epoch, counted from 0: an encoder that is to wait for its turn is held."""
        for encoder in self.model.encoders.values():
            cast(Encoder, encoder).held = epoch < self.unfreeze_after
        self.model.train()

    def autocast(self) -> torch.autocast:
        """Mixed precision, where it is wanted."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def logits(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Per stream float32 (B, K), or (B, T, K)."""
        with self.autocast():
            features = self.model.encode(batch.inputs, batch.lengths)
            return {k: v.float() for k, v in self.model.branch_logits(features, batch.lengths).items()}

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of one stream's outputs, over what has a target."""
        if self.model.numeric:
            return number_loss(outputs, self.model.standardised(targets))
        return class_loss(self._adjusted(outputs), targets, self.weights, self.smoothing)

    def mass(self, batch: Batch) -> float:
        """What a batch's mean loss is a mean over: how many targets there are, or the sum of their classes' weights."""
        given = known(batch.targets)
        if self.weights is None:
            return float(given.sum())
        weights = self.weights.to(batch.targets.device)
        if isinstance(batch, MixedBatch):
            return float(torch.lerp(weights[batch.others], weights[batch.targets], batch.shares).sum())
        return float(weights[batch.targets[given]].sum())

    def train(self, batches: Sequence[Batch]) -> tuple[float, float]:
        """One update from one batch, or from several as if they were one; the loss and the gradient's norm before
        clipping.

        Each stream learns from its own loss: late fusion is between networks that stand on their own.

        Args:
            batches: at least one in some process, each with a target; moved to the device one after the other.
        """
        self.optimizer.zero_grad(set_to_none=True)
        masses = [self.mass(batch) for batch in batches]
        whole = total(sum(masses), self.device)
        loss = torch.zeros((), device=self.device)
        for batch, mass in zip(batches, masses, strict=True):
            part = self._loss_of(batch.to(self.device)) * (mass / whole)
            self.scaler.scale(part).backward()
            loss += part.detach()
        loss = sum_gradients(self.model.parameters(), loss)
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.learned, self.clip_norm))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None and math.isfinite(norm):  # fp16: the scaler left such an update out
            self.average.update()
        return float(loss), norm

    def _loss_of(self, batch: Batch) -> torch.Tensor:
        if isinstance(batch, MixedBatch):
            mix = batch.targets, batch.others, batch.shares, self.weights, self.smoothing
            losses = [mixed_class_loss(self._adjusted(x), *mix) for x in self.logits(batch).values()]
        else:
            losses = [self.loss(x, batch.targets) for x in self.logits(batch).values()]
        return torch.stack(losses).mean()

    def _adjusted(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.prior is None else logits + self.prior

    def take_over(self, state: TrainingState) -> None:
        """Go on from a state, with the first process's weights, moments and average in all of them."""
        self.scaler.load_state_dict(state.loss_scale or self.scaler.state_dict())
        more = {} if self.average is None else self.average.tensors()
        share_state(self.model, self.optimizer, more)
        if self.average is not None:
            self.average.load(more)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it the model has the averaged weights, where there are any."""
        return nullcontext() if self.average is None else self.average.in_place()

    def kept(self) -> dict[str, torch.Tensor]:
        """The weights that a checkpoint holds: those that are validated."""
        return self.model.state_dict() if self.average is None else self.average.weights


def class_weights(labels: Sequence[int] | NDArray[Any], classes: int, config: Config) -> torch.Tensor | None:
    """float32 (K), inverse to how often a class occurs, 1 on average over the clips, or over the labelled moments
    where each has a label; None if not asked for.
    """
    if config.training.balance != "weights":
        return None
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    return torch.tensor(len(labels) / (np.count_nonzero(np.bincount(labels)) * counts), dtype=torch.float32)


def log_prior(labels: Sequence[int] | NDArray[Any], classes: int, config: Config) -> torch.Tensor | None:
    """float32 (K), what logit adjustment adds: tau times the logarithm of each class's share of the training clips, or
    of their labelled moments; None if not asked for. A class that never occurs counts as one that occurs once.

    Menon et al., Long-tail learning via logit adjustment (ICLR 2021), equation 10.
    """
    tau = config.training.logit_adjustment
    if not tau:
        return None
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    return torch.tensor(tau * np.log(counts / counts.sum()), dtype=torch.float32)
