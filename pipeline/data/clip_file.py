"""Which file, or which segment of one, is to be read. Plain values: naming clips loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.targets import UNLABELLED, Target


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
    """

    path: str
    target: Target = UNLABELLED
    times: NDArray[np.float64] | None = None
    duration: float = 0.0
    digest: str = ""
    first: int = 0
