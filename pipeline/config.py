"""Every option of every stage: typed, documented, validated.

The dataclasses below are the YAML schema, the command line and the help at once: the text under a field is
its help, its type is its check, its default is what runs when nobody says otherwise.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pipeline.errors import ConfigError

MYPY = False  # mypy reads this as true; jsonargparse would take the types of a TYPE_CHECKING block for the real ones
if MYPY:
    AreaFraction: TypeAlias = float
    ClosedUnitInterval: TypeAlias = float
    Fraction: TypeAlias = float
    NonNegativeFloat: TypeAlias = float
    PositiveFloat: TypeAlias = float
    NonNegativeInt: TypeAlias = int
    PositiveInt: TypeAlias = int
else:
    from jsonargparse.typing import (
        ClosedUnitInterval,
        NonNegativeFloat,
        NonNegativeInt,
        PositiveFloat,
        PositiveInt,
        restricted_number_type,
    )

    Fraction = restricted_number_type("Fraction", float, [(">=", 0), ("<", 1)])
    AreaFraction = restricted_number_type("AreaFraction", float, [(">", 0), ("<=", 1)])

STREAMS = ("rgb", "flow")

Task: TypeAlias = Literal["label", "frame_label", "regression", "frame_regression"]

RECURRENT_OPTIONS = {
    "proj_size": ("lstm",),
    "zoneout": ("lstm", "peephole_lstm", "coupled_lstm"),
    "weight_dropout": ("rnn", "irnn", "gru", "lstm", "peephole_lstm", "coupled_lstm", "layer_norm_lstm", "slstm"),
}
"""Options that only some recurrences have."""


@dataclass
class DataConfig:
    """Which clips, and who learns from which."""

    root: str | None = None
    """Folder of class folders, folder that holds a clips.csv, or a list (path,label[,group,split,start,end];
    other tasks have other columns, see docs/tasks.md)."""
    layout: Literal[
        "auto", "folders", "splits", "list", "ucf101", "hmdb51", "ucf11", "kth", "kinetics", "something", "fiftyone"
    ] = "auto"
    """How the data is laid out: docs/data.md shows each; auto recognises all but kinetics and something."""
    annotations: str | None = None
    """Official split or annotation files of the layout, file or folder; unset: looked for beside the clips."""
    official_split: PositiveInt = 1
    """Which of the official splits (UCF101 and HMDB51 have three)."""
    background: str | None = None
    """Task frame_label: class of the moments in no segment; unset: they are neither learned nor scored."""
    group_pattern: str = "auto"
    r"""Regular expression over each path; its first parenthesis names the source group, and a group never
    straddles two splits. auto: UCF101's g(\d+)_c and KTH's person(\d+) where every file matches; none: no groups."""
    val: Fraction = 0.15
    """Share of the clips kept for choosing the best epoch."""
    test: Fraction = 0.2
    """Share of the clips kept for the final numbers; never used for a choice."""
    split_seed: NonNegativeInt = 0
    """Seed of the split alone, so that models trained with other seeds are scored on the same clips."""
    allow_leak: bool = False
    """Go on although near-duplicates, or parts of one group, lie on both sides of a split: too good numbers."""

    def __post_init__(self) -> None:
        if self.val + self.test >= 1:
            raise ConfigError(f"data.val + data.test is {self.val + self.test:g}; nothing is left for training")


@dataclass
class VideoConfig:
    """How a file becomes a clip: which moments, which size, which streams."""

    streams: str = "rgb"
    """Input streams joined by +: rgb (frames), flow (DIS optical flow), rgb+flow (two-stream, fused late)."""
    sampling: Literal["uniform", "rate"] = "uniform"
    """uniform: the same number of moments spread over the whole clip; rate: a fixed number per second."""
    frames: PositiveInt = 16
    """uniform: moments per clip. rate: longest training window in moments (evaluation reads the whole clip)."""
    fps: PositiveFloat = 8.0
    """rate: moments per second."""
    size: PositiveInt = 112
    """Height and width in pixels of the frames the encoder sees."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How a frame becomes square: stretch keeps every pixel's content, crop cuts the longer side, pad adds black."""
    partial: Literal["accept", "reject"] = "reject"
    """A file that is cut off or damaged: use the frames that decode, or leave the file out."""

    def __post_init__(self) -> None:
        names = self.streams.split("+")
        if sorted(set(names)) != sorted(names) or not set(names) <= set(STREAMS):
            raise ConfigError(f"video.streams is '{self.streams}'; choose rgb, flow or rgb+flow")

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The streams in their fixed order."""
        chosen = self.streams.split("+")
        return tuple(name for name in STREAMS if name in chosen)


@dataclass
class LimitsConfig:
    """What one file may cost before it is given up; every file is decoded in a process of its own for that."""

    seconds: PositiveFloat = 120.0
    """Longest time in seconds that one file may take to decode."""
    memory: PositiveInt = 4096
    """Most memory in MB that a process may have while it decodes one file."""
    megapixels: PositiveFloat = 100.0
    """Largest frame in millions of pixels."""
    min_frames: PositiveInt = 1
    """Fewest frames a clip must have."""


@dataclass
class FlowConfig:
    """The flow stream: OpenCV's DIS optical flow between neighbouring moments."""

    form: Literal["grid", "image"] = "grid"
    """grid: the flow averaged over grid x grid cells, fed to the recurrence as it is; image: fed to an encoder."""
    grid: PositiveInt = 8
    """grid: cells per side; a moment becomes 2 * grid * grid numbers."""
    size: PositiveInt = 160
    """Height and width in pixels at which the flow is computed."""
    interval: NonNegativeFloat = 0.08
    """Seconds between the two frames a flow is computed from; 0: from the previous sampled moment."""

    def __post_init__(self) -> None:
        if self.size < 12 or self.grid > self.size:
            raise ConfigError(
                f"flow.size is {self.size}, flow.grid {self.grid}; size must be 12 or more, grid at most size"
            )


@dataclass
class AugmentationConfig:
    """Random changes to training clips; one draw per clip, the same for each of its frames. A number that is learned
    does not follow crop, flip and rotate: switch them off where it is a position, size, direction or speed.
    """

    crop: AreaFraction = 0.7
    """Smallest share of the frame's area a random crop keeps; 1: no crop. Wrong for values that are positions."""
    flip: ClosedUnitInterval = 0.0
    """Probability of a mirror image. Leave at 0 where left and right differ in meaning, or values are positions."""
    rotate: NonNegativeFloat = 0.0
    """Largest rotation in degrees. Wrong for values that are positions or directions."""
    brightness: NonNegativeFloat = 0.2
    """Largest relative change of brightness and contrast."""
    saturation: NonNegativeFloat = 0.2
    """Largest relative change of saturation."""
    views: PositiveInt = 4
    """Frozen encoder: stored versions of each training clip; the first is the plain one, the others are augmented."""


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


@dataclass
class TrainingConfig:
    """The optimisation."""

    epochs: PositiveInt = 30
    """Passes over the training clips."""
    batch_size: PositiveInt = 16
    """Clips per step."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of AdamW, reached after the warm-up."""
    encoder_learning_rate: NonNegativeFloat = 0.0
    """Peak learning rate of an encoder that is trained; 0: the same as the rest."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay, on matrices alone."""
    warmup: NonNegativeFloat = 1.0
    """Epochs of linear warm-up before the cosine."""
    clip_norm: NonNegativeFloat = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread over all classes; for tasks with classes."""
    patience: NonNegativeInt = 0
    """Epochs without a better validation loss after which training stops; 0: never."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """Rare classes: weigh their loss (frame_label: by how many moments have them), draw their clips more often (label
    alone), or neither."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the GPU has it, else fp16 on a GPU, else fp32."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    workers: int = -1
    """Decoding processes; -1: one per core, at most 8; 0: in the main process."""


@dataclass
class TrackingConfig:
    """The MLflow run."""

    enabled: bool = True
    """Record the run in MLflow."""
    uri: str | None = None
    """Tracking store; unset: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder."""
    experiment: str = "video-lstm"
    """Experiment the run belongs to."""


@dataclass
class Config:
    """All of it."""

    name: str = "video-lstm"
    """Name of the run, and of its folder under runs/."""
    task: Task = "label"
    """label: a class per clip; frame_label: a class for each moment; regression: a number per clip; frame_regression:
    a number for each moment. docs/tasks.md shows the lists that each needs."""
    seed: NonNegativeInt = 0
    """Fixes weights, augmentation and order: the same command twice gives the same numbers on a CPU."""
    data: DataConfig = field(default_factory=DataConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def per_moment(self) -> bool:
        """The model answers at each moment, not once for the clip."""
        return self.task in ("frame_label", "frame_regression")

    @property
    def numeric(self) -> bool:
        """The answers are numbers, not classes."""
        return self.task in ("regression", "frame_regression")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration (or one section) as plain nested dictionaries, ready for YAML and JSON."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    """Restricted numbers are subclasses of int and float, which YAML does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, int) else float(value)


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"video": {"size": 64}}` as `{"video.size": 64}`, the names used on the command line and in MLflow."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
