"""Which file, or which segment of one, is to be read, and which are usable. Plain values: nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config import LimitsConfig
from pipeline.data.targets import UNLABELLED, Target


@dataclass(frozen=True)
class Turn:
    """How a view shows its clip."""

    mirrored: bool = False
    backwards: bool = False


@dataclass(frozen=True)
class ClipFile:
    """One file, or a segment of one, to read.

    Attributes:
        path: the file.
        target: what it is to be taken for; -1 where nobody knows.
        times: float64 (N,) seconds, the timestamps of the clip's frames; None: all of the file's, found first.
        duration: seconds of the clip.
        digest: the clip's identity: its content, and which segment of it.
        first: number within the file of the clip's first frame.
        turned: what it is to be taken for where it is shown mirrored or backwards and that changes its class, see
            `data.turned`.
    """

    path: str
    target: Target = UNLABELLED
    times: NDArray[np.float64] | None = None
    duration: float = 0.0
    digest: str = ""
    first: int = 0
    turned: Mapping[Turn, Target] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """What counts as a usable clip.

    Attributes:
        limits: what a file may cost, and how short a clip may be.
        partial: whether a damaged file gives the frames that decode.
    """

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    partial: Literal["accept", "reject"] = "reject"
