"""Options of what goes in: clips, splits, frames, streams, augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.types import (
    AreaFraction,
    ClosedUnitInterval,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pipeline.errors import ConfigError

STREAMS = ("rgb", "difference", "flow")
LEAVE_ONE_GROUP_OUT = "leave-one-group-out"


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
    """Share of the clips kept for choosing the best epoch; with folds, of those that the fold does not test."""
    test: Fraction = 0.2
    """Share of the clips kept for the final numbers; never used for a choice. Of no meaning with folds."""
    split_seed: NonNegativeInt = 0
    """Seed of the split or the folds alone, so that models trained with other seeds are scored on the same clips."""
    folds: NonNegativeInt | Literal["leave-one-group-out"] = 0
    """Cross-validation: number of parts by group, each tested once by a model that learned from the others; or
    leave-one-group-out, one part per group; 0: one split by val and test. See docs/cross_validation.md."""
    fold: NonNegativeInt = 0
    """Train this one of the folds alone, counted from 1; 0: all, one after the other."""
    allow_leak: bool = False
    """Go on although near-duplicates, or parts of one group, lie on both sides of a split: too good numbers."""

    def __post_init__(self) -> None:
        if self.val + self.test >= 1:
            raise ConfigError(f"data.val + data.test is {self.val + self.test:g}; nothing is left for training")
        if self.folds == 1:
            raise ConfigError(f"data.folds is 1; choose 2 or more, {LEAVE_ONE_GROUP_OUT}, or 0 for one split")
        if self.fold and not self.folds:
            raise ConfigError(f"data.fold is {self.fold}, but data.folds is 0: say how many folds there are")
        if isinstance(self.folds, int) and self.fold > self.folds:
            raise ConfigError(f"data.fold is {self.fold}, but data.folds is {self.folds}")


@dataclass
class VideoConfig:
    """How a file becomes a clip: which moments, which size, which streams."""

    streams: str = "rgb"
    """Input streams joined by + and fused late: rgb (frames), difference (between frames), flow (DIS optical flow)."""
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
            raise ConfigError(
                f"video.streams is '{self.streams}'; choose {', '.join(STREAMS)}, or several such as rgb+flow"
            )

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
class DifferenceConfig:
    """The difference stream: what became brighter or darker within a short time."""

    form: Literal["grid", "image"] = "grid"
    """grid: how much brighter and darker each of grid x grid cells became, fed to the recurrence as it is; image: the
    signed change of every pixel, fed to an encoder."""
    grid: PositiveInt = 8
    """grid: cells per side; a moment becomes 2 * grid * grid numbers."""
    size: PositiveInt = 160
    """grid: height and width in pixels at which frames are compared; an image has video.size."""
    interval: NonNegativeFloat = 0.08
    """Seconds between the two frames that are compared; 0: from the previous sampled moment."""

    def __post_init__(self) -> None:
        if self.grid > self.size:
            raise ConfigError(f"difference.grid is {self.grid}, difference.size {self.size}; grid must be at most size")


@dataclass
class AugmentationConfig:
    """Random changes to training clips; one draw per clip, the same for each of its frames. A number that is learned
    does not follow crop, flip and rotate: switch them off where it is a position, size, direction or speed.
    """

    crop: AreaFraction = 0.7
    """Smallest share of the frame's area a random crop keeps; 1: no crop. Wrong for values that are positions."""
    flip: ClosedUnitInterval = 0.0
    """Probability of a mirror image. Leave at 0 where values are positions; where left and right differ in meaning, say
    in flip_labels what changes."""
    flip_labels: list[list[str]] = field(default_factory=list)
    """Task label: pairs of classes that a mirror image exchanges, such as [[swipe_left, swipe_right]]; all others stay
    what they are."""
    reverse: ClosedUnitInterval = 0.0
    """Task label: probability that a clip is played backwards."""
    reverse_labels: list[list[str]] = field(default_factory=list)
    """Pairs of classes that playing backwards exchanges, such as [[open, close], [swipe_up, swipe_down]]; all others
    stay."""
    rotate: NonNegativeFloat = 0.0
    """Largest rotation in degrees. Wrong for values that are positions or directions."""
    brightness: NonNegativeFloat = 0.2
    """Largest relative change of brightness and contrast."""
    saturation: NonNegativeFloat = 0.2
    """Largest relative change of saturation."""
    views: PositiveInt = 4
    """Frozen encoder: stored versions of each training clip; the first is the plain one, the others are augmented."""

    def __post_init__(self) -> None:
        _check_pairs(self.flip_labels, "augmentation.flip_labels")
        _check_pairs(self.reverse_labels, "augmentation.reverse_labels")


def _check_pairs(pairs: Sequence[Sequence[str]], option: str) -> None:
    """Each class has one partner, and none is its own."""
    if any(len(pair) != 2 for pair in pairs):
        raise ConfigError(f"{option} is a list of pairs of classes, such as [[swipe_left, swipe_right]]")
    named = [name for pair in pairs for name in pair]
    twice = sorted(name for name in set(named) if named.count(name) > 1)
    if twice:
        raise ConfigError(f"{option} names '{twice[0]}' twice; give each pair once, and leave out classes that stay")
