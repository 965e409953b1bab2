"""Clips in the order they are asked for, decoded ahead in worker processes. No torch: a decoding process imports this.

Each request carries the seed of its random view, so neither the number of workers nor the order of arrival changes
a number.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np

from pipeline.addresses import is_address, shown
from pipeline.config import FetchConfig
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.loading import LoadedClip, load_file, load_path
from pipeline.data.pool import Lost, Pool
from pipeline.errors import VideoError

Request = tuple[int, int | None]
"""Which file, by its position, and the seed of its random view; None: the evaluation view."""


def view_seed(*parts: int) -> int:
    """One seed from several numbers; changing any of them gives another."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def decoding_pool(plan: Plan, workers: int) -> Pool:
    """Processes that keep to a plan's limits."""
    return Pool(workers, plan.limits.seconds, plan.limits.memory)


def stream_clips(
    files: Sequence[ClipFile],
    plan: Plan,
    workers: int,
    requests: Sequence[Request] | None = None,
    fetch: FetchConfig | None = None,
    pool: Pool | None = None,
) -> Iterator[LoadedClip]:
    """Clips one by one in the order of `requests`, decoded ahead by `workers` processes.

    Without `requests`: the evaluation view of each file, once; then files may lie elsewhere, and `fetch` says what
    fetching them may cost. A `pool` that is given does the work instead of new processes, and stays open.
    """
    with decoding_pool(plan, workers) if pool is None else nullcontext(pool) as crew:
        if requests is None and any(is_address(file.path) for file in files):
            yield from _stream_fetched(crew, [file.path for file in files], plan, fetch or FetchConfig())
            return
        wanted = [(index, None) for index in range(len(files))] if requests is None else requests
        with closing(load_requests(crew, files, plan, wanted)) as loaded:
            yield from loaded


def _stream_fetched(pool: Pool, paths: list[str], plan: Plan, fetch: FetchConfig) -> Iterator[LoadedClip]:
    """Whole files, each brought to this machine before it is decoded."""
    from pipeline.data.remote.fetcher import run_fetched

    with closing(run_fetched(pool, partial(load_path, plan), paths, fetch)) as all_:
        for index, result in enumerate(all_):
            if isinstance(result, Lost):
                result = LoadedClip(index, None, VideoError(shown(paths[index]), result.reason, result.detail))
            elif result.error is not None:
                result = replace(
                    result, error=VideoError(shown(paths[index]), result.error.reason, result.error.detail)
                )
            yield replace(result, index=index)


def load_requests(
    pool: Pool,
    files: Sequence[ClipFile],
    plan: Plan,
    requests: Sequence[Request],
    ahead: int | None = None,
    lost: dict[int, VideoError] | None = None,
) -> Generator[LoadedClip, None, None]:
    """The requests in order; `lost` names the files that are not read, and those that cost a worker are added."""
    lost = {} if lost is None else lost
    known = dict(lost)
    items = [(index, files[index], view) for index, view in requests if index not in known]
    with closing(pool.run(partial(load_file, plan), items, ahead)) as results:
        for index, _ in requests:
            if index in known:
                yield LoadedClip(index, None, known[index])
                continue
            result = next(results)
            if isinstance(result, Lost):
                lost[index] = VideoError(files[index].path, result.reason, result.detail)
                result = LoadedClip(index, None, lost[index])
            yield result
