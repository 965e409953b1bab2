"""From clips to batches: decoding ahead in worker processes, padding, and lengths.

Each request carries the seed of its random view, so neither the number of workers nor the order of arrival changes
a number.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.addresses import is_address, shown
from pipeline.config import FetchConfig
from pipeline.data.clips import Plan
from pipeline.data.loading import ClipFile, LoadedClip, load_file, load_path
from pipeline.data.pool import Lost, Pool
from pipeline.data.targets import UNLABELLED, ClipTarget, target_at
from pipeline.errors import VideoError

__all__ = [
    "Batch",
    "ClipFile",
    "ClipLoader",
    "LoadedClip",
    "Request",
    "collate",
    "decoding_pool",
    "stream_clips",
    "view_seed",
]

Request = tuple[int, int | None]
"""Which file, by its position, and the seed of its random view; None: the evaluation view."""


@dataclass
class Batch:
    """Clips of one step.

    Attributes:
        inputs: per stream uint8 (B, T, 3, S, S) frames or float32 (B, T, D) vectors; padding at the end, zeros.
        lengths: int64 (B), moments that are real.
        targets: by task: a class for each clip, int64 (B), or for each moment, int64 (B, T), -1 in the padding and
            where there is none; a number for each clip, float32 (B), or for each moment, float32 (B, T), NaN in the
            padding and where it is not known.
        times: float64 (B, T), the moments in seconds after the clip's first frame; 0 in the padding.
        failed: files that gave no clip and are missing from this batch.
    """

    inputs: dict[str, torch.Tensor]
    lengths: torch.Tensor
    targets: torch.Tensor
    times: torch.Tensor
    failed: list[VideoError] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; frames travel as uint8 and are normalised there."""
        moved = {name: x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        return replace(self, inputs=moved, targets=self.targets.to(device, non_blocking=True))


def view_seed(*parts: int) -> int:
    """One seed from several numbers; changing any of them gives another."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def decoding_pool(plan: Plan, workers: int) -> Pool:
    """Processes that keep to a plan's limits."""
    return Pool(workers, plan.limits.seconds, plan.limits.memory)


class ClipLoader:
    """Batches of freshly decoded clips, for training an encoder.

    A file that cost a worker its life is not read again: a decoder that hangs would cost its time limit every epoch.

    Args:
        files: what can be asked for.
        plan: how it is read.
        batch_size: clips per batch.
        pool: the processes that decode, kept from one pass to the next; loaders that take turns may share one.
        pinned: see `collate`.
    """

    def __init__(
        self, files: Sequence[ClipFile], plan: Plan, batch_size: int, pool: Pool, pinned: bool = False
    ) -> None:
        self.pool, self._pinned = pool, pinned
        self._files = files
        self._plan = plan
        self._batch_size = batch_size
        self._lost: dict[int, VideoError] = {}

    def batches(self, requests: Sequence[Request], sizes: Sequence[int] | None = None) -> Iterator[Batch]:
        """The clips asked for, in that order. Files that fail are named in the batch they are missing from.

        `sizes`: clips of each batch, where they are not all `batch_size`; a batch may have none.

        While one batch is computed on, the next two are decoded. A new pass ends one that was not read to its end.
        """
        ahead = 2 * self._batch_size + self.pool.workers
        with closing(_load(self.pool, self._files, self._plan, requests, ahead, self._lost)) as loaded:
            for size in _sizes(len(requests), self._batch_size) if sizes is None else sizes:
                items = list(islice(loaded, size))
                clips = [(item.clip, self._files[item.index].target) for item in items if item.clip is not None]
                failed = [item.error for item in items if item.error is not None]
                times = [clip.times for clip, _ in clips]
                targets = [target_at(target, clip.times) for clip, target in clips]
                yield collate([clip.inputs for clip, _ in clips], targets, times, failed, self._pinned)


def _sizes(count: int, batch_size: int) -> list[int]:
    return [min(batch_size, count - start) for start in range(0, count, batch_size)]


def stream_clips(
    files: Sequence[ClipFile],
    plan: Plan,
    workers: int,
    requests: Sequence[Request] | None = None,
    fetch: FetchConfig | None = None,
) -> Iterator[LoadedClip]:
    """Clips one by one in the order of `requests`, decoded ahead by `workers` processes.

    Without `requests`: the evaluation view of each file, once; then files may lie elsewhere, and `fetch` says what
    fetching them may cost.
    """
    if requests is None and any(is_address(file.path) for file in files):
        yield from _stream_fetched([file.path for file in files], plan, workers, fetch or FetchConfig())
        return
    wanted = [(index, None) for index in range(len(files))] if requests is None else requests
    with decoding_pool(plan, workers) as pool, closing(_load(pool, files, plan, wanted)) as loaded:
        yield from loaded


def _stream_fetched(paths: list[str], plan: Plan, workers: int, fetch: FetchConfig) -> Iterator[LoadedClip]:
    """Whole files, each brought to this machine before it is decoded."""
    from pipeline.data.remote.fetcher import run_fetched

    with (
        decoding_pool(plan, workers) as pool,
        closing(run_fetched(pool, partial(load_path, plan), paths, fetch)) as all_,
    ):
        for index, result in enumerate(all_):
            if isinstance(result, Lost):
                result = LoadedClip(index, None, VideoError(shown(paths[index]), result.reason, result.detail))
            elif result.error is not None:
                result = replace(
                    result, error=VideoError(shown(paths[index]), result.error.reason, result.error.detail)
                )
            yield replace(result, index=index)


def _load(
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


def collate(
    inputs: Sequence[Mapping[str, NDArray[Any]]],
    targets: Sequence[ClipTarget],
    times: Sequence[NDArray[np.float64]] | None = None,
    failed: list[VideoError] | None = None,
    pinned: bool = False,
) -> Batch:
    """Pad clips of different lengths to one batch; the padding is at the end and never read.

    Args:
        inputs: per clip and stream (T, ...).
        targets: of one kind: a class or a number per clip, or an array (T,) of them.
        times: per clip the moments, float64 (T,) seconds; None, where nobody asks for them: zeros.
        failed: files that gave no clip.
        pinned: put the inputs where a CUDA device copies from while the CPU goes on.
    """
    lengths = [len(next(iter(clip.values()))) for clip in inputs]
    longest = max(lengths, default=0)
    padded = {}
    for name in inputs[0] if inputs else ():
        padded[name] = _padded([clip[name] for clip in inputs], longest, 0, pinned)
    moments = [np.zeros(length) for length in lengths] if times is None else times
    return Batch(
        padded,
        torch.tensor(lengths, dtype=torch.int64),
        _target_tensor(targets, longest),
        _padded(moments, longest, 0) if inputs else torch.zeros((0, 0), dtype=torch.float64),
        failed or [],
    )


def _target_tensor(targets: Sequence[ClipTarget], longest: int) -> torch.Tensor:
    """Targets of one kind, see `Batch`."""
    arrays = [target for target in targets if isinstance(target, np.ndarray)]
    if not arrays:
        number = any(isinstance(target, float) for target in targets)
        return torch.tensor(list(targets), dtype=torch.float32 if number else torch.int64)
    missing = np.nan if arrays[0].dtype == np.float32 else UNLABELLED
    return _padded(arrays, longest, missing)


def _padded(clips: Sequence[NDArray[Any]], longest: int, fill: float, pinned: bool = False) -> torch.Tensor:
    """Arrays (T, ...) of one dtype as one (B, T, ...)."""
    dtype = torch.from_numpy(clips[0][:0]).dtype
    block = torch.empty((len(clips), longest, *clips[0].shape[1:]), dtype=dtype, pin_memory=pinned)
    for row, clip in zip(block.numpy(), clips, strict=True):
        row[: len(clip)] = clip
        row[len(clip) :] = fill
    return block
