"""What a cluster's tasks do: decode files. Without torch, which would cost each worker a second and half a gigabyte.

Clips and answers travel as bytes of this program's own making, in the order of the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import pyarrow as pa

from pipeline.config import FetchConfig, LimitsConfig
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.pool import Pool
from pipeline.data.stream import stream_clips
from pipeline.data.wire import pack, unpack

CLIPS_AT_ONCE = 8
"""Decoded clips that a task hands on together."""


def paths_table(paths: Sequence[str]) -> pa.Table:
    """The files of one task. Names need not be text, so they travel as pickles, too."""
    return table_of("path", [pack(path) for path in paths])


def decode(table: pa.Table, plan: Plan, fetch: FetchConfig | None) -> Iterator[pa.Table]:
    """The clips of the files of a task, in a process that they may crash, a few at a time."""
    paths = [unpack(path) for path in table["path"].to_pylist()]
    clips = stream_clips([ClipFile(path) for path in paths], plan, 1, None, fetch, _pool(plan.limits))
    done = (pack((path, loaded)) for path, loaded in zip(paths, clips, strict=True))
    while together := list(islice(done, CLIPS_AT_ONCE)):
        yield table_of("clip", together)


def table_of(name: str, values: Sequence[bytes]) -> pa.Table:
    """One column of bytes."""
    return pa.table({name: pa.array(values, pa.large_binary())})


@lru_cache(maxsize=1)
def _pool_of(seconds: float, memory: int) -> Pool:
    return Pool(1, seconds, memory)


def _pool(limits: LimitsConfig) -> Pool:
    """The decoding process of this worker, kept from one task to the next; it ends with the worker."""
    return _pool_of(limits.seconds, limits.memory)
