"""One update of a training: logits, loss, gradient, optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.config import Config
from pipeline.data.batches import Batch
from pipeline.model.classifier import Classifier
from pipeline.model.losses import class_loss, number_loss
from pipeline.report.tasks import JUDGED
from pipeline.stages.devices import choose_precision
from pipeline.stages.optimise import optimizer_for


class TrainStep:
    """Model, optimiser, precision: what one step of training needs."""

    def __init__(self, model: Classifier, config: Config, device: torch.device, weights: torch.Tensor | None) -> None:
        self.model = model
        self.device = device
        self.precision = choose_precision(config.training.precision, device)
        self.clip_norm = config.training.clip_norm or math.inf
        self.optimizer = optimizer_for(model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.weights = None if weights is None else weights.to(device)
        self.smoothing = config.training.label_smoothing
        self.score, self.title = JUDGED[config.task].validation, JUDGED[config.task].title

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


def class_weights(labels: Sequence[int] | NDArray[Any], classes: int, config: Config) -> torch.Tensor | None:
    """float32 (K), inverse to how often a class occurs, 1 on average over the clips, or over the labelled moments
    where each has a label; None if not asked for.
    """
    if config.training.balance != "weights":
        return None
    counts = np.bincount(labels, minlength=classes).clip(min=1)
    return torch.tensor(len(labels) / (np.count_nonzero(np.bincount(labels)) * counts), dtype=torch.float32)
