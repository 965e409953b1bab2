"""Which parameters learn, and how fast: parameter groups of the optimiser, and the rate over the steps."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from pipeline.config import Config, TrainingConfig
from pipeline.model.blocks import depths
from pipeline.model.classifier import Classifier
from pipeline.model.encoder import Encoder


def optimizer_for(model: Classifier, config: Config) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices alone, the encoder at its own rate, its deeper blocks at smaller ones.

    The groups are the same at each epoch: an encoder that is held has its place in them, and no gradient.

    Returns:
        Its groups have, beside what AdamW reads, `peak`, the highest rate, and `starts`, the epoch in which they begin
        to learn, counted from 0.
    """
    settings = config.training
    encoder_rates = _encoder_rates(model, config)
    groups: dict[tuple[float, float, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = encoder_rates.get(name, settings.learning_rate)
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            starts = config.encoder.unfreeze_after if name in encoder_rates else 0
            groups.setdefault((rate, decay, starts), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay, "starts": starts}
            for (rate, decay, starts), parameters in groups.items()
        ]
    )


def _encoder_rates(model: Classifier, config: Config) -> dict[str, float]:
    """Peak rate of each parameter of the encoders, by its name in the model."""
    top = config.training.encoder_learning_rate or config.training.learning_rate
    return {
        f"encoders.{stream}.trunk.{name}": top * config.encoder.layer_decay**depth
        for stream, encoder in model.encoders.items()
        for name, depth in depths(cast(Encoder, encoder).trunk).items()
    }


def set_rates(optimizer: torch.optim.Optimizer, update: int, per_epoch: int, settings: TrainingConfig) -> float:
    """Set the rates for an update, counted from 0 over all epochs. A group that starts late has a warm-up of its own.

    Returns:
        The share of the peak rate of what learns from the start.
    """
    factor = rate_factor(update, per_epoch, settings.epochs, settings.warmup)
    rising = per_epoch * settings.warmup
    for group in optimizer.param_groups:
        since = update - group["starts"] * per_epoch
        joining = min(1.0, max(0.0, (since + 1) / (rising + 1))) if group["starts"] else 1.0
        group["lr"] = group["peak"] * factor * joining
    return factor


def rate_factor(step: int, steps_per_epoch: int, epochs: int, warmup: float) -> float:
    """Share of the peak learning rate at a step counted from 0: linear warm-up, then a cosine towards 0."""
    total = steps_per_epoch * epochs
    rising = min(steps_per_epoch * warmup, total / 2)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))
