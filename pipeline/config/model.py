"""Options of the model: encoder and recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config.types import AreaFraction, Fraction, NonNegativeInt, PositiveInt
from pipeline.errors import ConfigError

RECURRENT_OPTIONS = {
    "proj_size": ("lstm",),
    "zoneout": ("lstm", "peephole_lstm", "coupled_lstm"),
    "weight_dropout": ("rnn", "irnn", "gru", "lstm", "peephole_lstm", "coupled_lstm", "layer_norm_lstm", "slstm"),
}
"""Options that only some recurrences have."""


@dataclass
class EncoderConfig:
    """The CNN that turns each frame into a vector."""

    name: str = "efficientnet_lite0"
    """compact (ours, four layers, for small data), efficientnet_lite0, or a torchvision classification CNN."""
    weights: str = "packaged"
    """none; packaged (efficientnet_lite0, mobilenet_v2: no download); torchvision (ImageNet, downloaded once);
    or the path of a .safetensors file."""
    frozen: bool = True
    """Keep the weights as they are: the encoder stays in evaluation mode and its features are stored on disk."""
    grid: PositiveInt = 1
    """Cells per side that the feature map is averaged to; 1: global average pooling."""
    unfreeze_after: NonNegativeInt = 0
    """frozen false: epochs in which the head learns alone, before the encoder joins."""
    unfreeze_blocks: NonNegativeInt = 0
    """frozen false: how many of the encoder's last blocks learn, the others staying as they are; 0: all."""
    layer_decay: AreaFraction = 1.0
    """frozen false: learning rate of each block of the encoder over that of the block after it; 1: all learn alike."""
    stochastic_depth: Fraction = 0.0
    """frozen false: chance that a residual block is left out for a frame: near this for the last one, less the earlier
    it comes (Huang et al. 2016); for efficientnet_* and convnext_*."""

    def __post_init__(self) -> None:
        off = {"unfreeze_after": 0, "unfreeze_blocks": 0, "layer_decay": 1, "stochastic_depth": 0}
        for option in (name for name, value in off.items() if self.frozen and getattr(self, name) != value):
            raise ConfigError(
                f"encoder.{option} is for an encoder that learns; set encoder.frozen false, or leave it out"
            )


@dataclass
class RecurrentConfig:
    """What happens over time, from one vector per frame to the logits."""

    kind: Literal[
        "none", "rnn", "irnn", "gru", "lstm", "peephole_lstm", "coupled_lstm", "layer_norm_lstm",
        "min_gru", "min_lstm", "conv_lstm", "slstm", "mlstm",
    ] = "lstm"  # fmt: skip
    """The recurrence; none: pooling alone, the baseline that everything must beat. See docs/recurrent.md."""
    hidden: PositiveInt = 128
    """Size of the hidden state; conv_lstm: its channels."""
    layers: PositiveInt = 2
    """Stacked layers."""
    bidirectional: bool = False
    """Read the clip in both directions; such a model cannot stream."""
    residual: bool = False
    """Add a layer's input to its output wherever both have the same size."""
    projection: NonNegativeInt = 0
    """Size to which each feature vector is reduced first (linear, ReLU); 0: not at all."""
    proj_size: NonNegativeInt = 0
    """lstm: size to which the hidden state itself is projected (Sak et al. 2014); 0: not at all."""
    dropout: Fraction = 0.3
    """Dropout on the features, between the layers and before the logits."""
    variational: bool = False
    """Dropout draws one mask per clip and keeps it at all steps (Gal and Ghahramani 2016); lstm, peephole_lstm and
    coupled_lstm: on the recurrent connection too."""
    zoneout: Fraction = 0.0
    """lstm, peephole_lstm, coupled_lstm: chance that a unit keeps its state for a step (Krueger et al. 2017)."""
    weight_dropout: Fraction = 0.0
    """rnn, irnn, gru and all lstm but the convolutional one: share of the recurrent weights left out at each update
    (Merity et al. 2018)."""
    pooling: Literal["last", "mean", "max", "attention", "linear"] = "last"
    """From the hidden states to one vector: last valid step, mean, maximum, learned attention, or a mean whose weights
    grow linearly with time."""
    truncate: NonNegativeInt = 0
    """Steps after which the gradient through time is cut (truncated back-propagation), for long clips; 0: never."""
    initialisation: Literal["orthogonal", "chrono", "default"] = "orthogonal"
    """orthogonal: recurrent weights gate by gate, and the forget bias below; chrono: the same with gate biases for gaps
    of up to chrono_steps (Tallec and Ollivier 2018); default: as PyTorch draws them."""
    forget_bias: float = 1.0
    """Start value of the LSTM's forget-gate bias (Jozefowicz et al. 2015)."""
    chrono_steps: NonNegativeInt = 0
    """chrono: the longest gap to expect, in steps; 0: the longest training clip."""

    def __post_init__(self) -> None:
        for option, kinds in RECURRENT_OPTIONS.items():
            if getattr(self, option) and self.kind not in kinds:
                raise ConfigError(f"recurrent.{option} is for {', '.join(kinds)}; recurrent.kind is {self.kind}")
        if self.bidirectional and self.truncate:
            raise ConfigError("recurrent.truncate cuts a forward recurrence; it cannot be used with bidirectional")
        if self.proj_size and (self.proj_size >= self.hidden or self.zoneout or self.variational):
            raise ConfigError("recurrent.proj_size must be below hidden, without zoneout and variational dropout")
        if self.kind == "conv_lstm" and self.projection:
            raise ConfigError("recurrent.projection would destroy the feature map that conv_lstm keeps; set it to 0")
