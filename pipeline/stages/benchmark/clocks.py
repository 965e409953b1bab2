"""How long a model's parts take: clocks hung onto the very modules and the very update of a training.

Every reading waits for the device to finish, so a GPU's queue hides nothing. That slows the whole down a little, which
is why throughput is measured without them.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.data.batches import Batch
from pipeline.model.classifier import Classifier
from pipeline.stages.step import TrainStep

LEAST, MOST = 2, 50
"""Repetitions that are timed after one to warm up, which alone counts where it uses up the time for all."""

Seconds = dict[str, float]


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def clocks(
    model: Classifier, device: torch.device, optimizer: torch.optim.Optimizer | None = None
) -> Iterator[Seconds]:
    """Seconds spent in encoder, head and optimiser so far, kept up to date while the context lasts."""
    spent: Seconds = defaultdict(float)
    started: dict[str, float] = {}

    def start(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            synchronise(device)
            started[name] = time.perf_counter()

        return hook

    def stop(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            synchronise(device)
            spent[name] += time.perf_counter() - started[name]

        return hook

    parts: list[tuple[str, nn.Module]] = [("encoder", one) for one in model.encoders.values()]
    parts += [("head", one) for one in model.branches.values()]
    handles: list[Any] = []
    for name, module in parts:
        handles += [module.register_forward_pre_hook(start(name)), module.register_forward_hook(stop(name))]
    if optimizer is not None:
        handles.append(optimizer.register_step_pre_hook(start("optimiser")))
        handles.append(optimizer.register_step_post_hook(stop("optimiser")))
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def repeated(once: Callable[[], Seconds], budget: float) -> Seconds:
    """Median seconds of each part over repetitions until about `budget` seconds are over."""
    end = time.perf_counter() + budget
    found = once()
    if time.perf_counter() > end:
        return found
    each: dict[str, list[float]] = defaultdict(list)
    for number in range(MOST):
        if number >= LEAST and time.perf_counter() > end:
            break
        for name, value in once().items():
            each[name].append(value)
    return {name: statistics.median(values) for name, values in each.items()}


def real_rate(done: Iterable[tuple[int, float]], warm: int, budget: float) -> tuple[float, float]:
    """Clips per second, and the share of the time in which the model waited for them.

    Args:
        done: piece by piece, the clips and the seconds of the model's work on them.
        warm: pieces that pass before the clock starts: processes start, queues fill. Fewer, but one, where they take
            longer than the budget.
        budget: seconds after which it is enough; one piece is timed in any case.
    """
    clips, worked = 0, 0.0
    first = began = now = time.perf_counter()
    for number, (count, seconds) in enumerate(done):
        now = time.perf_counter()
        if number == 0 or (number < warm and began - first < budget):
            began = now
            continue
        clips, worked = clips + count, worked + seconds
        if now - began > budget:
            break
    return clips / (now - began), max(0.0, 1 - worked / (now - began))


def time_update(step: TrainStep, batches: Sequence[Batch]) -> Seconds:
    """One update on batches in memory: copy, encoder, head, backward, optimiser; losses and clipping count as
    backward. The model learns from it.
    """
    device = step.device
    with clocks(step.model, device, step.optimizer) as spent:
        began = time.perf_counter()
        moved = [batch.to(device) for batch in batches]
        synchronise(device)
        copied = time.perf_counter()
        step.train(moved)
        synchronise(device)
        total = time.perf_counter() - copied
    forward = {name: seconds for name, seconds in spent.items() if name != "optimiser"}
    rest = total - sum(spent.values())
    return {"copy": copied - began, **forward, "backward": rest, "optimiser": spent["optimiser"]}


def time_inference(model: Classifier, device: torch.device, once: Callable[[], object]) -> Seconds:
    """One call that takes a clip through the model: copy (with all that is around the model), encoder, head."""
    with clocks(model, device) as spent:
        began = time.perf_counter()
        once()
        synchronise(device)
        total = time.perf_counter() - began
    return {"copy": total - sum(spent.values()), **spent}
