"""The CNN that turns frames into vectors, with its own normalisation inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import EncoderConfig
from pipeline.errors import ConfigError
from pipeline.model.blocks import blocks
from pipeline.model.folding import Folded
from pipeline.model.parts import Parts, in_parts
from pipeline.model.trunk import build_trunk, check_frame_size, normalisation
from pipeline.model.weights import apply_weights, load_weights

CHUNK = 32
"""Frames per pass in evaluation. A long clip must not need memory for all its maps at once, and maps that leave a
CPU's cache cost time: 128 frames of 112 px took 1.4 times as long in one pass as in four."""
GPU_CHUNK = 256
"""The same on other devices, which a small pass does not fill."""


class Encoder(nn.Module):
    """A CNN trunk between normalisation and pooling.

    Frames come in as they left the decoder, so that training, evaluation and streaming cannot normalise
    differently.

    In evaluation mode and without gradients the trunk's batch norms are folded into its convolutions; in training those
    of the blocks that are fixed. Modules and state dict stay what they are; the folded copy follows every change of the
    weights that PyTorch counts (optimisers, `load_state_dict`, `to`). A write through `.data` is not counted: call
    `eval()` or `train()` after it.

    Args:
        trunk: maps normalised frames (N, 3, S, S) to feature maps (N, channels, h, w).
        channels: channels of those maps.
        mean, std: per channel, in 0..255.
        grid: cells per side that the map is averaged to.
        frozen: no gradient, and always in evaluation mode: neither weights nor batch-norm statistics move.
        precision: of the folded trunk. fp32: as the weights are. bf16: about half the time where the hardware
            computes in it, and other features: ours differ by 5 (Lite0) to 15 percent (MobileNetV2) of their length.
            Normalisation and pooling stay fp32.
        learning: how many of the trunk's last blocks learn. The others are fixed: they have no gradient and stay in
            evaluation mode, so that their batch-norm statistics do not move. 0: all learn.

    Attributes:
        dim: size of the vector, channels * grid * grid.
        frozen: as given.
        precision: as given.
        held: the whole encoder is to behave as a frozen one, for as long as this is set; from the next `train()` on.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        grid: int = 1,
        frozen: bool = False,
        precision: Literal["fp32", "bf16"] = "fp32",
        learning: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.grid = grid
        self.frozen = frozen
        self.precision = precision
        self.held = False
        self.dim = channels * grid * grid
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        # NHWC in memory: a third quicker on a CPU, and what tensor cores want.
        self.trunk.to(memory_format=torch.channels_last)
        if frozen:
            self.requires_grad_(False)
        self._fixed_paths = [path for block in blocks(trunk)[:-learning] for path in block] if learning else []
        self._fixed = [trunk.get_submodule(path).requires_grad_(False) for path in self._fixed_paths]
        self._folded = Folded(trunk.eval(), torch.bfloat16 if precision == "bf16" else None)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self.train(self.training)

    def compile_trunk(self) -> None:
        """Let PyTorch compile what the trunk does in training; modules and state dict stay what they are.

        The first training step takes the time of it, seconds to minutes. The gradient is that of the same function,
        its sums taken in another order.
        """
        compiled = torch.compile(self.trunk)

        def run(frames: Tensor) -> Tensor:
            torch._dynamo.maybe_mark_dynamic(frames, 0)  # type: ignore[no-untyped-call]  # batches differ in frames
            result: Tensor = compiled(frames)
            return result

        self._compiled = run

    def compute_in(self, precision: Literal["fp32", "bf16"]) -> None:
        """Change the precision of the folded trunk."""
        if precision != self.precision:
            self.precision = precision
            self._folded.dtype = torch.bfloat16 if precision == "bf16" else None
            self._folded.drop()

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, except that what is frozen, held or fixed stays in evaluation mode."""
        self._folded.drop()
        if parts := self.__dict__.get("_parts"):
            parts.drop()
        if self.frozen and not self.training:
            return self  # as it is already: an epoch on stored features would notice the walk through all layers
        super().train(mode and not self.frozen and not self.held)
        for module in self._fixed:
            module.eval()
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S), uint8 or float in 0..255, to vectors (N, dim) float.

        In training all N frames share their batch statistics; in evaluation they are independent, and go
        through in chunks.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not (self.frozen or self.held)):
            if self.training:
                return self.pool(self.feature_map(frames))
            parts = frames.split(chunk_of(frames.device))
            return torch.cat([self.pool(self.feature_map(part)) for part in parts])

    def feature_map(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S), uint8 or float in 0..255, to the trunk's last map (N, channels, h, w) float."""
        if self.training or torch.is_grad_enabled():
            self._folded.drop()  # an update may follow
            return self._learn(self._normalise(frames, None)).to(self.mean.dtype)
        trunk = self._folded.of(self.trunk)
        return trunk(self._normalise(frames, None if trunk is self.trunk else self._folded.dtype)).to(self.mean.dtype)

    @cached_property
    def _parts(self) -> Parts | None:
        """Made at the first training step: who only classifies need not wait for it."""
        return in_parts(self.trunk, self._fixed_paths) if self._fixed_paths else None

    def _learn(self, frames: Tensor) -> Tensor:
        """Normalised frames through the trunk as it is in training."""
        if self.training and self._compiled is not None:
            return self._compiled(frames)
        if self.training and self._parts is not None:
            return self._parts(frames, chunk_of(frames.device))
        result: Tensor = self.trunk(frames)
        return result

    def _normalise(self, frames: Tensor, dtype: torch.dtype | None) -> Tensor:
        # The copy to channels last comes at the end: the arithmetic is quicker on whole planes.
        normalised = (frames - self.mean).div_(self.std)
        return normalised.to(dtype or self.mean.dtype, memory_format=torch.channels_last)

    def pool(self, maps: Tensor) -> Tensor:
        """Feature maps (N, channels, h, w) to vectors (N, dim): the means of grid x grid cells."""
        return F.adaptive_avg_pool2d(maps, self.grid).flatten(1)


def chunk_of(device: torch.device) -> int:
    """Frames per pass without gradients."""
    return CHUNK if device.type == "cpu" else GPU_CHUNK


@torch.inference_mode(False)  # weights made under it keep no count of their changes and would be folded at each call
def build_encoder(config: EncoderConfig, load: bool = True, size: int | None = None) -> Encoder:
    """The encoder that `config` names, with its weights.

    Args:
        config: all of it but what decides the learning rates.
        load: read the pretrained weights; False where a checkpoint will supply them.
        size: height and width of the frames in pixels, where known: checked against the CNN's smallest.

    Raises:
        ConfigError: unknown name (with the nearest ones), frames too small for this CNN, or options that it cannot
            follow.
        WeightsError: the weights are missing or do not fit.
    """
    trunk, channels = build_trunk(config.name, config.stochastic_depth)
    check_blocks(trunk, config)
    if size is not None:
        check_frame_size(trunk, config.name, size)
    if load and config.weights != "none":
        apply_weights(trunk, load_weights(config.name, config.weights))
    mean, std = normalisation(config.name)
    return Encoder(trunk, channels, mean, std, config.grid, config.frozen, learning=config.unfreeze_blocks)


def check_blocks(trunk: nn.Module, config: EncoderConfig) -> None:
    """Raises ConfigError where more blocks are to learn than the trunk has."""
    count = len(blocks(trunk))
    if config.unfreeze_blocks > count:
        raise ConfigError(
            f"encoder.unfreeze_blocks is {config.unfreeze_blocks}, but {config.name} has {count}; 0 lets all learn"
        )
