"""The pictures of a model's mistakes: a few frames of each clip, read in the decoding processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import FlowConfig, VideoConfig
from pipeline.data.clips import Plan
from pipeline.data.stream import stream_clips
from pipeline.stages.devices import choose_workers
from pipeline.stages.scoring import Scored

FRAMES, SIZE = 8, 112
"""Frames of a clip that are shown, and their height and width in pixels."""


def film_strips(scored: Scored, mistakes: Sequence[dict[str, Any]], workers: int) -> list[NDArray[np.uint8] | None]:
    """Frames spread over each mistaken clip, uint8 (T, 112, 112, 3) RGB, whole and with black bars; None where the file
    cannot be read any more.
    """
    files = [scored.files[mistake["clip"]] for mistake in mistakes]
    plan = Plan(VideoConfig(streams="rgb", frames=FRAMES, size=SIZE, fit="pad"), FlowConfig())
    strips: list[NDArray[np.uint8] | None] = []
    for loaded in stream_clips(files, plan, min(choose_workers(workers), len(files))) if files else ():
        frames = None if loaded.clip is None else loaded.clip.inputs["rgb"].transpose(0, 2, 3, 1)
        strips.append(None if frames is None else frames.astype(np.uint8))
    return strips
