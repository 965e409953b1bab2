"""Clips to logits or numbers: an encoder where a stream has images, a branch per stream, fused at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.config import Config, RecurrentConfig
from pipeline.errors import ConfigError
from pipeline.model.branch import Branch
from pipeline.model.encoder import Encoder, build_encoder
from pipeline.model.recurrent import valid_mask

Inputs = Mapping[str, Tensor]
"""Stream name -> frames (B, T, 3, S, S), uint8 or float in 0..255; or features (B, T, D) float32."""

State = dict[str, dict[str, Any]]
"""Stream name -> that branch's state: plain nested values, tensors and numbers."""


class Classifier(nn.Module):
    """The whole model, for each task. It returns logits, or numbers in the target's unit; probabilities are made
    where they are shown.

    The branches of a model of numbers answer in standard deviations from the mean of the training targets; the two
    buffers `target_mean` and `target_std`, which a checkpoint carries, turn that into the target's unit.

    Args:
        sizes: stream name -> size D of a moment's feature vector, in the order of the streams.
        encoders: stream name -> encoder, for the streams that come as images.
        outputs: K, the number of classes; 1 for numbers.
        config: the recurrence.
        per_moment: an answer at each moment: (B, T, K) instead of (B, K).
        numeric: the answers are numbers, not classes.
        grids: stream name -> cells per side of the feature map that its vectors are; where none is named, 1.

    Attributes:
        streams: names of the streams.
        encoders: as given.
        branches: a `Branch` per stream.
        per_moment, numeric: as given.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        sizes: Mapping[str, int],
        encoders: Mapping[str, Encoder],
        outputs: int,
        config: RecurrentConfig,
        per_moment: bool = False,
        numeric: bool = False,
        grids: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.streams = tuple(sizes)
        self.per_moment, self.numeric = per_moment, numeric
        self.encoders = nn.ModuleDict(dict(encoders))
        moving = {name for name, encoder in encoders.items() if not encoder.frozen}
        self.branches = nn.ModuleDict(
            {
                name: Branch(size, outputs, config, name in moving, per_moment, (grids or {}).get(name, 1))
                for name, size in sizes.items()
            }
        )
        if numeric:
            self.register_buffer("target_mean", torch.zeros(()))
            self.register_buffer("target_std", torch.ones(()))

    @property
    def frozen(self) -> bool:
        """Nothing before the standardisation is trained, so features can be stored and used again."""
        return all(encoder.frozen for encoder in self.encoders.values())

    @property
    def streamable(self) -> bool:
        """The model can be fed moment by moment (`step`)."""
        return all(self._branch(name).recurrent.streamable for name in self.streams)

    def forward(self, inputs: Inputs, lengths: Tensor) -> Tensor:
        """Clips and lengths int64 (B), 1..T, to logits (B, K) or numbers (B, 1); per moment (B, T, K) or (B, T, 1)."""
        return self.head(self.encode(inputs, lengths), lengths)

    def encode(self, inputs: Inputs, lengths: Tensor) -> dict[str, Tensor]:
        """Frames to features, stream name -> (B, T, D) float, 0 in the padding.

        Only frames that belong to a clip go through a CNN, so batch norm never sees the padding. Features
        that were encoded before pass through.

        Raises:
            ConfigError: the streams are not those of the model, or a stream has another shape.
        """
        self._check(inputs, moments=True)
        return {name: self._encode(name, inputs[name], lengths) for name in self.streams}

    def head(self, features: Inputs, lengths: Tensor) -> Tensor:
        """Features (B, T, D) per stream to what `forward` gives."""
        return self.combine(self.branch_logits(features, lengths))

    def branch_logits(self, features: Inputs, lengths: Tensor) -> dict[str, Tensor]:
        """Features (B, T, D) per stream to each stream's own logits (B, K) or standardised numbers (B, 1); per moment
        (B, T, K) or (B, T, 1).
        """
        return {name: self.branches[name](features[name], lengths) for name in self.streams}

    def combine(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """The streams' outputs as one answer: fused logits, or the mean of the numbers in the target's unit."""
        if not self.numeric:
            return fuse(outputs)
        return torch.stack(list(outputs.values())).mean(0) * self.target_std + self.target_mean

    def step(self, inputs: Inputs, state: State | None = None) -> tuple[Tensor, State]:
        """One moment of B clips: the answer to all moments so far, and the state for the next call.

        In evaluation mode this equals `forward` over the moments so far; for a task with an answer per moment, its
        answer at this moment.

        Args:
            inputs: stream name -> frames (B, 3, S, S) or features (B, D).
            state: what the previous call returned; None at a clip's start.

        Returns:
            Logits (B, K) or numbers (B, 1), and the new state; the old one is not changed.

        Raises:
            ConfigError: a bidirectional model, or other streams than the model's.
        """
        self._check(inputs, moments=False)
        logits: dict[str, Tensor] = {}
        after: State = {}
        for name in self.streams:
            one = inputs[name]
            features = self.encoders[name](one) if one.ndim == 4 else one
            logits[name], after[name] = self._branch(name).step(features, (state or {}).get(name))
        return self.combine(logits), after

    def fit_targets(self, mean: float, std: float) -> None:
        """Set mean and standard deviation of the training targets; a deviation of 0 becomes 1.

        Raises:
            ValueError: not a model of numbers, or not finite.
        """
        if not self.numeric:
            raise ValueError("a model of classes has no targets to standardise")
        if not (math.isfinite(mean) and math.isfinite(std)):
            raise ValueError("standardisation of targets needs finite numbers")
        self.target_mean.fill_(mean)
        self.target_std.fill_(std or 1.0)

    def standardised(self, targets: Tensor) -> Tensor:
        """Targets in their unit as the branches are to answer them; NaN stays NaN."""
        return (targets - self.target_mean) / self.target_std

    def fit_standardisation(self, stream: str, mean: Tensor, std: Tensor) -> None:
        """Set the mean and standard deviation (D,) of one stream's features; of training clips alone."""
        self._branch(stream).standardisation.fit(mean, std)

    def _branch(self, name: str) -> Branch:
        return cast(Branch, self.branches[name])

    def _encode(self, name: str, x: Tensor, lengths: Tensor) -> Tensor:
        mask = valid_mask(lengths, x.shape[1], x.device)
        if x.ndim == 3:
            return x.masked_fill(~mask.unsqueeze(-1), 0.0)
        vectors = self.encoders[name](x[mask])
        features = vectors.new_zeros(*mask.shape, vectors.shape[-1])
        features[mask] = vectors
        return features

    def _check(self, inputs: Inputs, moments: bool) -> None:
        """The streams and the shapes that `encode` (with moments) and `step` (without) can read."""
        if set(inputs) != set(self.streams):
            given = "+".join(inputs) or "none"
            raise ConfigError(f"the model reads the streams {'+'.join(self.streams)}, the input has {given}")
        for name, x in inputs.items():
            axes = x.ndim - moments
            size = len(self._branch(name).standardisation.mean)
            frames = axes == 4 and x.shape[-3] == 3 and name in self.encoders
            if not frames and not (axes == 2 and x.shape[-1] == size):
                raise ConfigError(f"stream {name} has the shape {tuple(x.shape)}; the model's size is {size}")


def fuse(logits: Mapping[str, Tensor]) -> Tensor:
    """Late fusion: the mean of the streams' log-probabilities; a single stream's logits as they are.

    The softmax of the mean is the renormalised geometric mean of the streams' distributions.

    Args:
        logits: stream name -> (..., K).

    Returns:
        (..., K).
    """
    scores = list(logits.values())
    if len(scores) == 1:
        return scores[0]
    return torch.stack([score.log_softmax(-1) for score in scores]).mean(0)


def build_classifier(config: Config, classes: int, load: bool = True) -> Classifier:
    """The model that `config` describes.

    Args:
        config: task, video.streams and video.size, difference, flow, encoder and recurrent are read.
        classes: K, at least 1; of no meaning where the task's answers are numbers.
        load: read the encoder's pretrained weights; False where a checkpoint will supply them.

    Raises:
        ConfigError: unknown encoder, or frames too small for it.
        WeightsError: the weights are missing or do not fit.
    """
    sizes: dict[str, int] = {}
    grids: dict[str, int] = {}
    encoders: dict[str, Encoder] = {}
    for name in config.video.stream_names:
        if name not in config.image_streams:
            grids[name] = (config.flow if name == "flow" else config.difference).grid
            sizes[name] = 2 * grids[name] ** 2
            continue
        encoders[name] = build_encoder(config.encoder, load, config.video.size)
        sizes[name], grids[name] = encoders[name].dim, config.encoder.grid
    outputs = 1 if config.numeric else classes
    return Classifier(sizes, encoders, outputs, config.recurrent, config.per_moment, config.numeric, grids)
