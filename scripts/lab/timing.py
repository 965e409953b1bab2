"""Time of a training step of each member, as a ratio to the LSTM's: one thread, in turns, nothing else running."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from lab.fit import RATE, Net, step
from lab.grid import HIDDEN
from lab.sources import BATCH
from lab.tasks import temporal_order
from pipeline.config import RecurrentConfig

STEPS = 100
REPEATS = 15
REFERENCE = "lstm"


def time_ratios(kinds: Sequence[str], repeats: int = REPEATS) -> dict[str, float]:
    """Member -> median time of an update on 64 sequences of 100 steps, over that of the LSTM.

    Every round times each member once, so that what else the machine does falls on all of them.
    """
    torch.set_num_threads(1)
    order = list(dict.fromkeys([REFERENCE, *kinds]))
    batch = temporal_order(STEPS, BATCH, np.random.default_rng(0))
    nets, optimizers = {}, {}
    for kind in order:
        torch.manual_seed(0)
        config = RecurrentConfig(kind=kind, hidden=HIDDEN, layers=1, dropout=0.0)  # type: ignore[arg-type]
        nets[kind] = Net(batch.x.shape[2], 4, 1, config)
        optimizers[kind] = torch.optim.Adam(nets[kind].parameters(), lr=RATE)
        step(nets[kind], optimizers[kind], "class", batch)  # whatever is compiled or allocated once
    seconds: dict[str, list[float]] = {kind: [] for kind in order}
    for repeat in range(repeats):
        turn = repeat % len(order)
        for kind in order[turn:] + order[:turn]:
            started = time.perf_counter()
            step(nets[kind], optimizers[kind], "class", batch)
            seconds[kind].append(time.perf_counter() - started)
    base = statistics.median(seconds[REFERENCE])
    return {kind: statistics.median(seconds[kind]) / base for kind in kinds}
