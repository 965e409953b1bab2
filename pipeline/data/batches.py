"""From clips to batches: workers that decode, padding, and lengths.

Each request carries the seed of its random view, so neither the number of workers nor the order of arrival changes
a number.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.data.clips import ClipInputs, Plan, load_clip
from pipeline.errors import VideoError
from pipeline.video import use_one_thread
from pipeline.video.reader import probe

Request = tuple[int, int | None]
"""Which file, by its position, and the seed of its random view; None: the evaluation view."""


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


@dataclass(frozen=True)
class LoadedClip:
    """What a worker hands over for one file: a clip, or why there is none.

    Attributes:
        index: position in the list of files.
        clip: None when the file gave none.
        error: None when it gave one.
        duration: seconds of the whole file; 0 when unknown.
    """

    index: int
    clip: ClipInputs | None
    error: VideoError | None = None
    duration: float = 0.0


@dataclass
class Batch:
    """Clips of one step.

    Attributes:
        inputs: per stream uint8 (B, T, 3, S, S) frames or float32 (B, T, D) vectors; padding at the end, zeros.
        lengths: int64 (B), moments that are real.
        labels: int64 (B).
        failed: files that gave no clip and are missing from this batch.
    """

    inputs: dict[str, torch.Tensor]
    lengths: torch.Tensor
    labels: torch.Tensor
    failed: list[VideoError] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; frames travel as uint8 and are normalised there."""
        moved = {name: x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        return Batch(moved, self.lengths, self.labels.to(device, non_blocking=True), self.failed)


class ClipDataset(Dataset[LoadedClip]):
    """Files read on demand, indexed by a `Request`."""

    def __init__(self, files: Sequence[ClipFile], plan: Plan) -> None:
        self.files = files
        self.plan = plan

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, request: Request) -> LoadedClip:
        index, view = request
        file = self.files[index]
        try:
            if file.times is None:
                info = probe(file.path)
                return LoadedClip(index, load_clip(file.path, info.times, self.plan, view), duration=info.duration)
            return LoadedClip(index, load_clip(file.path, file.times, self.plan, view, file.first), duration=file.duration)
        except VideoError as error:
            return LoadedClip(index, None, error)


def view_seed(*parts: int) -> int:
    """One seed from several numbers; changing any of them gives another."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


class _Requests(Sampler[Request]):
    """The requests of one pass, replaced before the next, so that workers live on between passes."""

    def __init__(self) -> None:
        self.requests: Sequence[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)


class ClipLoader:
    """Batches of freshly decoded clips, for training an encoder.

    Args:
        files: what can be asked for.
        plan: how it is read.
        batch_size: clips per batch.
        workers: decoding processes, kept from one pass to the next; 0 decodes in this process.
    """

    def __init__(self, files: Sequence[ClipFile], plan: Plan, batch_size: int, workers: int) -> None:
        self._requests = _Requests()
        self._loader = DataLoader(
            ClipDataset(files, plan),
            batch_size=batch_size,
            sampler=self._requests,
            # no method of this object: a loader that is part of a circle cannot end its workers and waits 5 s for each
            collate_fn=partial(_collate, files),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # the global one would be drawn from once per pass, or once for all workers
        )

    def batches(self, requests: Sequence[Request]) -> Iterator[Batch]:
        """The clips asked for, in that order. Files that fail are named in the batch they are missing from."""
        self._requests.requests = requests
        return iter(self._loader)


def _collate(files: Sequence[ClipFile], loaded: list[LoadedClip]) -> Batch:
    clips = [(item.clip, files[item.index].label) for item in loaded if item.clip is not None]
    failed = [item.error for item in loaded if item.error is not None]
    return collate([clip.inputs for clip, _ in clips], [label for _, label in clips], failed)


def stream_clips(
    files: Sequence[ClipFile], plan: Plan, workers: int, requests: Sequence[Request] | None = None
) -> Iterator[LoadedClip]:
    """Clips one by one in the order of `requests`, decoded ahead by `workers` processes.

    Without `requests`: the evaluation view of each file, once.
    """
    order = _Requests()
    order.requests = [(index, None) for index in range(len(files))] if requests is None else requests
    loader: DataLoader[LoadedClip] = DataLoader(
        ClipDataset(files, plan),
        batch_size=None,
        sampler=order,
        num_workers=min(workers, len(order)),
        worker_init_fn=start_worker,
        generator=torch.Generator(),
    )
    return iter(loader)


def collate(
    inputs: Sequence[Mapping[str, NDArray[Any]]],
    labels: Sequence[int],
    failed: list[VideoError] | None = None,
) -> Batch:
    """Pad clips of different lengths to one batch; the padding is zeros at the end and never read."""
    lengths = [len(next(iter(clip.values()))) for clip in inputs]
    padded = {}
    for name in inputs[0] if inputs else ():
        first = inputs[0][name]
        block = np.zeros((len(inputs), max(lengths), *first.shape[1:]), dtype=first.dtype)
        for row, clip in enumerate(inputs):
            block[row, : lengths[row]] = clip[name]
        padded[name] = torch.from_numpy(block)
    return Batch(
        padded,
        torch.tensor(lengths, dtype=torch.int64),
        torch.tensor(list(labels), dtype=torch.int64),
        failed or [],
    )


def start_worker(_: int) -> None:
    """One thread per decoding process, which ends when it is told to."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    use_one_thread()
    torch.set_num_threads(1)
