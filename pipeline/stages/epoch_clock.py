"""Where the time of an epoch goes, and how single updates went: measured beside the training, which never waits for it.

On a GPU the clocks are events in its own queue, in one of `GPU_EVERY` updates, read after it, when the GPU has passed
them anyway. A benchmark has clocks that wait (`benchmark/clocks.py`): they are exact, and slow the whole down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from pipeline.model.classifier import Classifier

POINTS = 1000
"""Most updates of a training whose numbers are kept one by one: enough for a curve, and for the store no burden."""

GPU_EVERY = 8
"""Updates of which one is timed on a GPU: the events of each would cost 2 per cent of an update of 11 ms (H200)."""

Item = TypeVar("Item")


class EpochClock:
    """Seconds of one epoch: `decode` (waiting for clips: decoded and transformed, or stored features), `encoder` and
    `head` (their forward passes), `update` (the rest of each update), `validation`; together the epoch.

    Args:
        model: whose parts are timed.
        device: where it is; on anything but a CPU and a CUDA GPU the parts count as `update`.
    """

    def __init__(self, model: Classifier, device: torch.device) -> None:
        self._parts: list[tuple[str, nn.Module]] = []
        if device.type in ("cpu", "cuda"):
            self._parts += [("encoder", one) for one in model.encoders.values()]
            self._parts += [("head", one) for one in model.branches.values()]
        self._cuda = device.type == "cuda"
        self._passed: list[tuple[str, Any, Any]] = []
        self._updates = self._timed = 0
        self._seconds = dict.fromkeys(("decode", "encoder", "head", "update"), 0.0)
        self._timing = True
        self._began = self._trained = time.perf_counter()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Time the parts while the context lasts: the epoch's updates."""
        handles: list[Any] = []
        begun: dict[str, Any] = {}
        for name, module in self._parts:
            handles.append(module.register_forward_pre_hook(self._start(name, begun)))
            handles.append(module.register_forward_hook(self._stop(name, begun)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._collect()
            self._trained = time.perf_counter()

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; what they take to come counts as `decode`."""
        source = iter(items)
        while True:
            self._timing = not self._cuda or self._updates % GPU_EVERY == 0
            began = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self._seconds["decode"] += time.perf_counter() - began
            yield item
            self._updates, self._timed = self._updates + 1, self._timed + self._timing
            self._collect()

    def seconds(self) -> dict[str, float]:
        """Of the epoch, which ends now."""
        now = time.perf_counter()
        found = dict(self._seconds)
        for name in ("encoder", "head"):
            found[name] *= self._updates / max(self._timed, 1)
        found["update"] = max(0.0, self._trained - self._began - sum(found.values()))
        return found | {"validation": now - self._trained}

    def _start(self, name: str, begun: dict[str, Any]) -> Callable[..., None]:
        return lambda *_: begun.__setitem__(name, self._now()) if self._timing else None

    def _stop(self, name: str, begun: dict[str, Any]) -> Callable[..., None]:
        return lambda *_: self._passed.append((name, begun[name], self._now())) if self._timing else None

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _collect(self) -> None:
        """Add up what was passed; an update has read its loss, so a GPU is through with it."""
        if self._cuda and self._passed:
            self._passed[-1][2].synchronize()
        for name, began, ended in self._passed:
            self._seconds[name] += began.elapsed_time(ended) / 1e3 if self._cuda else ended - began
        self._passed.clear()


class StepRecord:
    """The numbers of every so many updates: [update, loss, gradient norm, learning rate], updates counted from 1.

    Args:
        first: number of the epoch's first update, counted from 0.
        updates: of the whole training, which decide how many are passed over.
    """

    def __init__(self, first: int, updates: int) -> None:
        self.rows: list[list[float | None]] = []
        self._number = first
        self._every = max(1, math.ceil(updates / POINTS))

    def note(self, loss: float, norm: float, rate: float) -> None:
        """An update is over."""
        self._number += 1
        if self._number % self._every == 0:
            self.rows.append([self._number, *(x if math.isfinite(x) else None for x in (loss, norm, rate))])
