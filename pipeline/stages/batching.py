"""Many clips through one model: images are batched across files, encoder calls overlap, answers keep the order.

At any time a few calls' worth of clips is in memory, however many there are to come.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby, takewhile

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.clips import ClipInputs
from pipeline.data.loading import LoadedClip
from pipeline.stages.engine import Engine, filled_up, image_streams

AHEAD = 2
"""Encoder calls that wait, for each one that runs."""


@dataclass(eq=False)
class Answered:
    """One file on its way: `output` is what the engine's head says of it, None where it gave no clip.

    Attributes:
        loaded: the file, without its clip.
        times: float64 (T,), the clip's moments; empty without one.
        output: float32, see `Engine.head`.
        seconds: of the encoder and the head, this clip's share.
        features: per stream float32 (T, D), as far as they are there.
        missing: moments that are not encoded yet.
    """

    loaded: LoadedClip
    times: NDArray[np.float64]
    output: NDArray[np.float32] | None = None
    seconds: float = 0.0
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    missing: int = 0

    @property
    def length(self) -> int:
        """T; 0 where the file gave no clip."""
        return len(self.times)


@dataclass
class _Call:
    """Images of one encoder call, and whose they are: clip, first moment, number of moments."""

    parts: dict[str, list[NDArray[np.generic]]] = field(default_factory=dict)
    owners: list[tuple[Answered, int, int]] = field(default_factory=list)
    count: int = 0


def answer_all(engine: Engine, clips: Iterable[LoadedClip]) -> Iterator[Answered]:
    """What a model says of each clip, in their order."""
    waiting: deque[Answered] = deque()
    running: deque[tuple[Future[tuple[dict[str, NDArray[np.float32]], float]], _Call]] = deque()
    open_call = _Call()
    with _threads(engine.parallel) as pool:
        try:
            for loaded in clips:
                one = Answered(replace(loaded, clip=None), np.empty(0) if loaded.clip is None else loaded.clip.times)
                waiting.append(one)
                for full in _pack(one, loaded.clip, open_call, engine.images):
                    running.append((pool.submit(_encode, engine, full), full))
                while running and (len(running) > AHEAD * engine.parallel or running[0][0].done()):
                    _collect(*running.popleft())
                yield from _finished(engine, waiting, last=False)
            if open_call.count:
                running.append((pool.submit(_encode, engine, open_call), open_call))
            while running:
                _collect(*running.popleft())
            yield from _finished(engine, waiting, last=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _pack(one: Answered, clip: ClipInputs | None, call: _Call, size: int) -> Iterator[_Call]:
    """Put a clip's images where there is room; yields calls that are full, and goes on in `call`."""
    if clip is None:
        return
    images = image_streams(clip.inputs)
    # the streams keep their order; what an encoder has to see first is filled in later
    empty = np.empty((0, 0), np.float32)
    one.features = {name: empty if name in images else np.asarray(x, np.float32) for name, x in clip.inputs.items()}
    if not images:
        return
    one.missing, start = clip.length, 0
    while start < clip.length:
        count = min(clip.length - start, size - call.count)
        for name in images:
            call.parts.setdefault(name, []).append(clip.inputs[name][start : start + count])
        call.owners.append((one, start, count))
        call.count += count
        start += count
        if call.count == size:
            yield _Call(call.parts, call.owners, size)
            call.parts, call.owners, call.count = {}, [], 0


def _encode(engine: Engine, call: _Call) -> tuple[dict[str, NDArray[np.float32]], float]:
    started = time.perf_counter()
    found = engine.encode({name: filled_up(parts, engine.images) for name, parts in call.parts.items()})
    return found, time.perf_counter() - started


def _collect(future: Future[tuple[dict[str, NDArray[np.float32]], float]], call: _Call) -> None:
    """Give each clip its features."""
    found, seconds = future.result()
    place = 0
    for one, start, count in call.owners:
        for name, vectors in found.items():
            if not one.features[name].size:
                one.features[name] = np.empty((one.length, vectors.shape[1]), np.float32)
            one.features[name][start : start + count] = vectors[place : place + count]
        place += count
        one.missing -= count
        one.seconds += seconds * count / call.count


def _finished(engine: Engine, waiting: deque[Answered], last: bool) -> Iterator[Answered]:
    """The clips at the front that are encoded, answered: those of one length together, as the engine likes it."""
    ready = list(takewhile(lambda one: not one.missing, waiting))
    if not last and len(ready) < max((engine.clips(one.length) for one in ready), default=1):
        return
    for _ in ready:
        waiting.popleft()
    _heads(engine, [one for one in ready if one.length])
    yield from ready


def _heads(engine: Engine, clips: list[Answered]) -> None:
    """Answers of encoded clips, in buckets of one length."""
    for length, same in groupby(sorted(clips, key=lambda one: one.length), key=lambda one: one.length):
        bucket, most = list(same), engine.clips(length)
        for start in range(0, len(bucket), most):
            part = bucket[start : start + most]
            started = time.perf_counter()
            outputs = engine.head([one.features for one in part])
            each = (time.perf_counter() - started) / len(part)
            for one, output in zip(part, outputs, strict=True):
                one.output, one.features = output, {}
                one.seconds += each


def _threads(count: int) -> ThreadPoolExecutor:
    """Threads for encoder calls, each of which computes with one thread of its own."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "encoding", initializer=_alone)
    list(pool.map(_nothing, range(count)))
    torch.set_num_threads(before)  # PyTorch keeps a number per thread, and one for threads to come
    return pool


def _alone() -> None:
    torch.set_num_threads(1)


def _nothing(_: int) -> None:
    time.sleep(0.001)  # so that each thread starts
