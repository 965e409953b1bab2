"""Which parameters learn, and how fast: parameter groups of the optimiser, and the rate over the steps."""

from __future__ import annotations

import math

import torch
from torch import nn

from pipeline.config import Config
from pipeline.model.classifier import Classifier


def optimizer_for(model: Classifier, config: Config) -> torch.optim.Optimizer:
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
