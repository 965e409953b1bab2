"""Some clips of a data set, found and examined in a bounded time; demo clips where there is no data."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config import Config, DataConfig
from pipeline.data import catalog, layouts
from pipeline.data.clip_file import ClipFile
from pipeline.data.demo import write_demo
from pipeline.errors import DataError
from pipeline.stages.ingest import classes_of, clip_files
from pipeline.stages.progress import say

FIRST, MOST = 16, 128
"""Clips that are examined in any case, and at most."""
DEMO_GROUPS = 8
"""Groups of demo clips that stand in for data that is not there."""


@dataclass(frozen=True)
class Sample:
    """Readable clips, drawn at random.

    Attributes:
        files: the clips.
        classes: of the whole data set; empty where the task is a number.
        total: clips of the whole data set.
        source: where they are from, in words.
    """

    files: list[ClipFile]
    classes: list[str]
    total: int
    source: str


@contextmanager
def sample_clips(config: Config, seconds: float) -> Iterator[Sample]:
    """Clips of `config.data`, or demo clips of the task in a folder that is removed afterwards.

    Args:
        config: data, task, limits, seed.
        seconds: about how long it may take to examine them.

    Raises:
        DataError: the data is there and cannot be read.
    """
    root = config.data.root
    if root is not None and os.path.exists(os.path.expanduser(root)):
        yield _draw(config, seconds, root)
        return
    missing = "data.root is not set" if root is None else f"data.root {root} is not there"
    say(f"{missing}: demo clips stand in")
    with tempfile.TemporaryDirectory() as folder:
        write_demo(folder, DEMO_GROUPS, task=config.task)
        yield _draw(replace(config, data=DataConfig(root=folder)), seconds, f"demo clips; {missing}")


def _draw(config: Config, seconds: float, source: str) -> Sample:
    entries = layouts.discover(config.data, config.task).entries
    order = np.random.default_rng(config.seed).permutation(len(entries))
    drawn = [entries[int(index)] for index in order]
    limits = replace(config.limits, seconds=min(config.limits.seconds, max(seconds, 1.0)))
    policy = catalog.Policy(limits, config.video.partial)
    say(f"examining some of {len(entries)} clips")
    began = time.perf_counter()
    table = catalog.build(drawn[:FIRST], policy)
    spent = time.perf_counter() - began
    number = min(MOST, int(FIRST * seconds / spent))
    if number > FIRST:
        table = catalog.build(drawn[:number], policy)
    classes = classes_of(entries)
    files = clip_files(table[table["status"] == "ok"], classes)
    if not files:
        raise DataError(f"none of {len(table)} clips of {config.data.root} can be read; run: video-lstm doctor DATA")
    return Sample(files, classes, len(entries), source)
