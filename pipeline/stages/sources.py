"""Where the batches of a training come from: files decoded anew each epoch, or stored features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import TrainingConfig, VideoConfig
from pipeline.data.batches import Batch, ClipLoader, collate
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan, moments
from pipeline.data.features import FeatureStore, feature_key
from pipeline.data.pool import Pool
from pipeline.data.stream import Request, decoding_pool, view_seed
from pipeline.data.targets import Target, class_of, target_at
from pipeline.data.turned import seen_as
from pipeline.stages.devices import shares_cores

ALL = slice(None)
CPU = torch.device("cpu")
Item = TypeVar("Item")


class Source(Protocol):
    """Clips of one split, epoch by epoch.

    Attributes:
        targets: of each file, as it is shown in evaluation; a training view's is that of `data.turned.seen_as`.
        labels: the class of each file, as `class_of` gives it; -1 where the task has no classes.
        known_targets: those of all files' plain views in a row, moment by moment where each has one; without what is
            not known.
    """

    targets: list[Target]
    labels: list[int]
    known_targets: NDArray[Any]

    def batches(self, epoch: int, order: Sequence[int] | None, mine: slice = ALL) -> Iterator[Batch]:
        """Batches of the clips in `order`, as random views of this epoch; None: all, in order, unchanged.

        `mine`: of each batch only these clips, as many batches as without it; one may be empty.
        """


class FileSource:
    """Decodes the files each time; for an encoder that is trained.

    Args:
        files: the clips.
        plan: how they are read.
        config: how many clips make a batch.
        workers: decoding processes, kept from one epoch to the next; 0 decodes in this process.
        seed: decides, with the epoch, the view of each clip.
        pool: those of another source that takes turns with this one; None: its own.
        device: where the batches go; see `shares_cores`.
    """

    def __init__(
        self,
        files: Sequence[ClipFile],
        plan: Plan,
        config: TrainingConfig,
        workers: int,
        seed: int,
        pool: Pool | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.targets = [file.target for file in files]
        self.labels = [class_of(file.target, file.duration) for file in files]
        self.known_targets = known_targets(files, plan.video)
        self.pool = pool or decoding_pool(plan, workers)
        self._seed, self._batch_size = seed, config.batch_size
        pinned, turns = device.type == "cuda", shares_cores(device, workers)
        self._loader = ClipLoader(files, plan, config.batch_size, self.pool, pinned, turns)

    def batches(self, epoch: int, order: Sequence[int] | None, mine: slice = ALL) -> Iterator[Batch]:
        """See `Source`."""
        indices = range(len(self.labels)) if order is None else order
        parts = [part[mine] for part in in_batches(indices, self._batch_size)]
        requests = [
            (index, None if order is None else view_seed(self._seed, epoch, index)) for part in parts for index in part
        ]
        return self._loader.batches(requests, [len(part) for part in parts])


class FeatureSource:
    """Reads stored features; for a frozen encoder.

    Args:
        files: the clips.
        requests: per clip the views that are stored, the plain one first.
        store, plan, encoders: make up the key of each view, see `feature_key`.
        again: computes a view of a clip anew, should it vanish from the store.
    """

    def __init__(
        self,
        files: Sequence[ClipFile],
        requests: Sequence[Sequence[Request]],
        store: FeatureStore,
        plan: Plan,
        encoders: str,
        batch_size: int,
        seed: int,
        again: Callable[[ClipFile, int | None], dict[str, np.ndarray]],
    ) -> None:
        self._files, self._requests, self._again = files, requests, again
        self.targets = [file.target for file in files]
        self.labels = [class_of(file.target, file.duration) for file in files]
        self.known_targets = known_targets(files, plan.video)
        self._keys = [
            [feature_key(file.digest, plan, encoders, view) for _, view in views]
            for file, views in zip(files, requests, strict=True)
        ]
        self._store, self._video, self._augmentation = store, plan.video, plan.augmentation
        self._moments: dict[tuple[int, int], np.ndarray] = {}
        self._batch_size = batch_size
        self._seed = seed

    def batches(self, epoch: int, order: Sequence[int] | None, mine: slice = ALL) -> Iterator[Batch]:
        """See `Source`."""
        for part in in_batches(self.drawn(epoch, order), self._batch_size):
            chosen = part[mine]
            features = [self.features(index, view) for index, view in chosen]
            times = [self.moments(index, view) for index, view in chosen]
            targets = [target_at(self._seen_as(*one), moments) for one, moments in zip(chosen, times, strict=True)]
            yield collate(features, targets, times)

    def drawn(self, epoch: int, order: Sequence[int] | None) -> list[tuple[int, int]]:
        """The clips of an epoch in their order, and which of its views each shows."""
        if order is None:
            return [(index, 0) for index in range(len(self.labels))]
        rng = np.random.default_rng([self._seed, epoch, 1])  # 1: not the numbers of `epoch_order`
        return [(index, int(rng.integers(len(self._keys[index])))) for index in order]

    def _seen_as(self, index: int, view: int) -> Target:
        return seen_as(self._files[index], self._requests[index][view][1], self._augmentation)

    def moments(self, index: int, view: int = 0) -> np.ndarray:
        """float64 (T,) seconds of one clip's view: as they were chosen when its features were computed."""
        if (index, view) not in self._moments:
            times = self._files[index].times
            if times is None:
                raise ValueError(f"{self._files[index].path}: a clip with stored features has known times")
            seed = self._requests[index][view][1]
            self._moments[index, view] = moments(times, self._video, seed, self._augmentation)
        return self._moments[index, view]

    def features(self, index: int, view: int = 0) -> dict[str, np.ndarray]:
        """Per stream float32 (T, D) of one clip's view."""
        found = self._store.get(self._keys[index][view])
        if found is None:  # the cache was cleared, or a file of it damaged, while training
            found = self._again(self._files[index], self._requests[index][view][1])
        return dict(found)


def in_batches(items: Sequence[Item], batch_size: int) -> list[Sequence[Item]]:
    """One part after the other; the last may be smaller."""
    return [items[start : start + batch_size] for start in range(0, len(items), batch_size)]


def known_targets(files: Sequence[ClipFile], video: VideoConfig) -> NDArray[Any]:
    """Classes int64 (N,) or numbers float64 (N,), see `Source`; nothing is read for them."""
    found = []
    for file in files:
        times = np.zeros(1) if file.times is None else moments(file.times, video)
        found.append(np.atleast_1d(np.asarray(target_at(file.target, times))))
    values = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    if np.issubdtype(values.dtype, np.integer):
        return values[values >= 0]
    return values[~np.isnan(values)].astype(np.float64)


def epoch_order(labels: Sequence[int], balance: str, seed: int, epoch: int) -> list[int]:
    """Which clips an epoch reads, in which order: all once, or drawn so that each class is equally likely.

    A function of its arguments alone, so that a resumed training reads what the interrupted one would have.
    """
    rng = np.random.default_rng([seed, epoch])
    if balance != "sampler":
        return [int(i) for i in rng.permutation(len(labels))]
    counts = np.bincount(labels)
    chance = 1.0 / counts[np.asarray(labels)]
    return [int(i) for i in rng.choice(len(labels), size=len(labels), p=chance / chance.sum())]
