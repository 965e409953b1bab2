"""Every option of every stage: typed, documented, validated.

The dataclasses below are the YAML schema, the command line and the help at once: the text under a field is
its help, its type is its check, its default is what runs when nobody says otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pipeline.config.data import (
    STREAMS,
    AugmentationConfig,
    DataConfig,
    DifferenceConfig,
    FlowConfig,
    LimitsConfig,
    VideoConfig,
)
from pipeline.config.fetch import FetchConfig
from pipeline.config.model import RECURRENT_OPTIONS, EncoderConfig, RecurrentConfig
from pipeline.config.ray import RayConfig
from pipeline.config.streams import EventsConfig, TimelineConfig, WatchConfig
from pipeline.config.training import TrackingConfig, TrainingConfig
from pipeline.config.types import NonNegativeInt

__all__ = [
    "RECURRENT_OPTIONS",
    "STREAMS",
    "AugmentationConfig",
    "Config",
    "DataConfig",
    "DifferenceConfig",
    "EncoderConfig",
    "EventsConfig",
    "FetchConfig",
    "FlowConfig",
    "LimitsConfig",
    "RayConfig",
    "RecurrentConfig",
    "Task",
    "TimelineConfig",
    "TrackingConfig",
    "TrainingConfig",
    "WatchConfig",
    "flatten",
    "to_dict",
]  # fmt: skip

Task: TypeAlias = Literal["label", "frame_label", "regression", "frame_regression"]


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
    difference: DifferenceConfig = field(default_factory=DifferenceConfig)
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
    def image_streams(self) -> tuple[str, ...]:
        """The streams that an encoder reads, in their order; the others are numbers already."""
        forms = {"difference": self.difference.form, "flow": self.flow.form}
        return tuple(name for name in self.video.stream_names if forms.get(name, "image") == "image")

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
    """`{"video": {"size": 64}}` as `{"video.size": 64}`, the names used on the command line and in MLflow.

    A list becomes the text that the command line takes.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return flat
