"""Which files count as usable clips. Plain values: stating it loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.config import LimitsConfig


@dataclass(frozen=True)
class Policy:
    """What counts as a usable clip.

    Attributes:
        limits: what a file may cost, and how short a clip may be.
        partial: whether a damaged file gives the frames that decode.
    """

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    partial: Literal["accept", "reject"] = "reject"
