"""Which file, or which segment of one, is to be read. Plain values: naming clips loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClipFile:
    """One file, or a segment of one, to read.

    Attributes:
        path: the file.
        label: number of its class; -1 where it has none.
        times: float64 (N,) seconds, the timestamps of the clip's frames; None: all of the file's, found first.
        duration: seconds of the clip.
        digest: the clip's identity: its content, and which segment of it.
        first: number within the file of the clip's first frame.
    """

    path: str
    label: int = -1
    times: NDArray[np.float64] | None = None
    duration: float = 0.0
    digest: str = ""
    first: int = 0
