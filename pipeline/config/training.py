"""Options of the optimisation and of its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pipeline.errors import ConfigError


@dataclass
class TrainingConfig:
    """The optimisation."""

    epochs: PositiveInt = 30
    """Passes over the training clips."""
    start_from: str | None = None
    """Model whose weights the training starts from: a checkpoint or run folder, models:/NAME@ALIAS or runs:/ID. It has
    the same streams, encoder and recurrence; a class that it knows keeps its row of the output layer. Unset: fresh
    weights, and the encoder's own. See docs/training.md."""
    batch_size: PositiveInt = 16
    """Clips per step."""
    accumulate: PositiveInt = 1
    """Batches per update: k of them update the weights as one batch of k times as many clips would, in the memory of
    one. Batch norm alone sees the single batches."""
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
    logit_adjustment: NonNegativeFloat = 0.0
    """Rare classes: times the logarithm of each class's share, added to the logits in the training loss (Menon et al.
    2021); 0: not at all, 1: as published."""
    mixup: NonNegativeFloat = 0.0
    """Task label: each clip is mixed with another one of its batch, with shares from Beta(mixup, mixup) (Zhang et al.
    2018); 0: not at all, 0.2 is usual."""
    cutmix: NonNegativeFloat = 0.0
    """Task label: a box of each clip's frames, or a span of its moments where it comes as vectors, is another clip's,
    with shares from Beta(cutmix, cutmix) (Yun et al. 2019); 0: not at all, 1 is usual."""
    ema: Fraction = 0.0
    """Decay of an exponential moving average of the weights, which is what is validated and kept; 0: none."""
    overfit_batch: bool = False
    """Before the training: see whether a copy of the model can learn one batch by heart, and say so if not."""
    patience: NonNegativeInt = 0
    """Epochs without a better validation loss after which training stops; 0: never."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """Rare classes: weigh their loss (frame_label: by how many moments have them), draw their clips more often (label
    alone), or neither."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the GPU has it, else fp16 on a GPU, else fp32."""
    compile: bool = False
    """Let PyTorch compile what an encoder that is trained does in training. Needs a C++ compiler, or Triton on a GPU,
    and costs its time at the first step; docs/performance.md says where it helps."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    workers: int = -1
    """Decoding processes; -1: one per core, at most 8; 0: in the main process."""

    def __post_init__(self) -> None:
        if self.logit_adjustment and self.balance != "none":
            raise ConfigError(
                f"training.logit_adjustment corrects what training.balance {self.balance} corrects already; use one"
            )


@dataclass
class TrackingConfig:
    """The MLflow run."""

    enabled: bool = True
    """Record the run in MLflow."""
    uri: str | None = None
    """Tracking store; unset: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder."""
    experiment: str = "video-lstm"
    """Experiment the run belongs to."""
    offline: bool = False
    """Record into the run's folder alone; `video-lstm sync` sends it to the store."""
    artifacts: Literal["default", "all"] = "default"
    """default: the best checkpoint, the last one where all stays below three times its size, figures, tables; all: the
    last checkpoint and the moments of every frame as well."""
    system_seconds: NonNegativeFloat = 10.0
    """Seconds between two readings of processor, memory and GPU; 0: none. MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
    counts before it."""
