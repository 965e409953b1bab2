"""Options of a sweep: many trainings that differ in a few options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.config import Config
from pipeline.config.types import NonNegativeFloat, NonNegativeInt, PositiveInt


@dataclass
class SweepConfig:
    """Which trainings are tried, and by what they are compared."""

    name: str = "sweep"
    """Name of the sweep's MLflow run, and of its folder under runs/."""
    base: Config = field(default_factory=Config)
    """What all trials have in common. In YAML the path of a training's configuration, as seen from this file, or its
    sections themselves."""
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options to vary, by their dotted names: {values: [...]}, or {low: ..., high: ...} with log: true or step: ..."""
    trials: PositiveInt = 20
    """Trainings in all, pruned and failed ones included; a larger number goes on with a finished sweep."""
    metric: str = "auto"
    """What trials are compared by: auto (the task's validation score), val_loss, or the score's own name. Of the epoch
    that the checkpoint is of. Never a test score: the best of many would be too good."""
    sampler: Literal["tpe", "random", "grid", "qmc"] = "tpe"
    """tpe: more of what did well, after ten at random; random; grid: every combination, in random order; qmc: numbers
    spread evenly (Sobol), choices at random."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials end early. median: those below the median of the others at the same epoch, after five trials and a
    quarter of the epochs; hyperband: most, by halving again and again; none."""
    parallel: PositiveInt = 1
    """Trials at a time, each in a process with its share of the cores; on several GPUs they take turns."""
    timeout: NonNegativeFloat = 0.0
    """Seconds after which no trial begins any more; those that run are finished. 0: no limit."""
    seed: NonNegativeInt = 0
    """Of the sampler; the trainings have base.seed."""
    storage: str | None = None
    """SQLAlchemy address of Optuna's database; unset: study.db in the sweep's folder."""
