"""From clips to batches: padding, and lengths."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.pool import Pool
from pipeline.data.stream import Request, load_requests
from pipeline.data.targets import UNLABELLED, ClipTarget, Target, target_at
from pipeline.data.turned import seen_as
from pipeline.errors import VideoError

STRETCH_CLIPS = 128
"""Most clips of a turn of decoding."""
STRETCH_BYTES = 256 << 20
"""Their memory, at most; a batch may be larger."""


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


class ClipLoader:
    """Batches of freshly decoded clips, for training an encoder.

    A file that cost a worker its life is not read again: a decoder that hangs would cost its time limit every epoch.

    Args:
        files: what can be asked for.
        plan: how it is read.
        batch_size: clips per batch.
        pool: the processes that decode, kept from one pass to the next; loaders that take turns may share one.
        pinned: see `collate`.
        turns: decode some batches, then nothing until the caller, which computes on the same cores, is done with them.
    """

    def __init__(
        self,
        files: Sequence[ClipFile],
        plan: Plan,
        batch_size: int,
        pool: Pool,
        pinned: bool = False,
        turns: bool = False,
    ) -> None:
        self.pool, self._pinned, self._turns = pool, pinned, turns
        self._files = files
        self._plan = plan
        self._batch_size = batch_size
        self._lost: dict[int, VideoError] = {}
        self._largest = 0

    def batches(self, requests: Sequence[Request], sizes: Sequence[int] | None = None) -> Iterator[Batch]:
        """The clips asked for, in that order. Files that fail are named in the batch they are missing from.

        `sizes`: clips of each batch, where they are not all `batch_size`; a batch may have none.

        While one batch is computed on, the next two are decoded, except in turns. A new pass ends an unfinished one.
        """
        sizes = _sizes(len(requests), self._batch_size) if sizes is None else sizes
        if not self._turns:
            yield from self._decoded(requests, sizes)
            return
        first = clip = 0
        while first < len(sizes):
            stretch = sizes[first : first + self._stretch()]
            done = deque(self._decoded(requests[clip : clip + sum(stretch)], stretch))
            first, clip = first + len(stretch), clip + sum(stretch)
            while done:
                yield done.popleft()

    def _stretch(self) -> int:
        """Batches in a row; one until their size is known."""
        if not self._largest:
            return 1
        return max(1, min(STRETCH_CLIPS // self._batch_size, STRETCH_BYTES // self._largest))

    def _decoded(self, requests: Sequence[Request], sizes: Sequence[int]) -> Iterator[Batch]:
        ahead = 2 * self._batch_size + self.pool.workers
        with closing(load_requests(self.pool, self._files, self._plan, requests, ahead, self._lost)) as loaded:
            views = iter(requests)
            for size in sizes:
                items = list(zip(islice(loaded, size), islice(views, size), strict=True))
                clips = [(item.clip, self._seen_as(request)) for item, request in items if item.clip is not None]
                failed = [item.error for item, _ in items if item.error is not None]
                times = [clip.times for clip, _ in clips]
                targets = [target_at(target, clip.times) for clip, target in clips]
                batch = collate([clip.inputs for clip, _ in clips], targets, times, failed, self._pinned)
                self._largest = max(self._largest, sum(x.nbytes for x in batch.inputs.values()))
                yield batch

    def _seen_as(self, request: Request) -> Target:
        index, view = request
        return seen_as(self._files[index], view, self._plan.augmentation)


def _sizes(count: int, batch_size: int) -> list[int]:
    return [min(batch_size, count - start) for start in range(0, count, batch_size)]


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
