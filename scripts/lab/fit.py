"""One cell of the laboratory: one member, one task, one gap, one seed, trained and scored."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lab.sources import BATCH, TEST, TRAINING, VALIDATION, Source
from lab.tasks import Kind, Sequences, Task
from pipeline.config import RecurrentConfig
from pipeline.model.pooling import Pooling
from pipeline.model.recurrent import Recurrent

RATE = 5e-3
"""Peak learning rate of Adam; a cosine takes it to a tenth."""
CLIP = 1.0
EVERY = 50
"""Updates between looks at the validation sequences."""
GIVE_UP = 0.6
"""Share of the updates after which a training that is still at chance on the validation sequences ends."""
AT_CHANCE = 0.1
"""A score this share of the way from chance to 1, or less, is at chance."""


@dataclass(frozen=True)
class Fit:
    """What a training came to.

    Attributes:
        score: on the test sequences, see `Task`.
        updates: optimiser steps taken; fewer than allowed where it was solved, or hopeless, before.
        parameters: trainable numbers.
        seconds: of processor time, for all of the cell.
    """

    score: float
    updates: int
    parameters: int
    seconds: float


class Net(nn.Module):
    """The product's recurrence and pooling, and one linear layer.

    A recurrence answers from its last valid steps, so what it says it must have kept. Without one (kind none) the mean
    over all steps answers, or, where each of several steps has an answer of its own, the step itself.

    Args:
        inputs: D.
        outputs: classes, or 1.
        answers: K, how many of the last steps answer.
        config: kind, hidden, layers, initialisation.
    """

    def __init__(self, inputs: int, outputs: int, answers: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.recurrent = Recurrent(inputs, config)
        self.pooling = Pooling("mean", inputs) if config.kind == "none" and answers == 1 else None
        self.answers = answers
        self.output = nn.Linear(self.recurrent.output_size, outputs)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, T, D), lengths int64 (B) to (B, K, outputs)."""
        hidden, _ = self.recurrent(x, lengths)
        if self.pooling is not None:
            return self.output(self.pooling(hidden, lengths)).unsqueeze(1)
        steps = lengths.unsqueeze(1) - self.answers + torch.arange(self.answers)
        return self.output(hidden[torch.arange(len(x)).unsqueeze(1), steps])


def fit(task: Task, source: Source, config: RecurrentConfig, seed: int, updates: int | None = None) -> Fit:
    """Train until the validation sequences are solved twice in a row, hopeless, or the updates are used up.

    Everything random comes from the seed, so the same cell gives the same score again.
    """
    started = time.process_time()
    rng = np.random.default_rng([seed, TRAINING])
    val = source.held_out(VALIDATION)
    torch.manual_seed(seed)
    net = Net(val.x.shape[2], task.outputs, val.y.shape[1], config)
    most = updates or task.updates
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, most, eta_min=RATE / 10)
    solved = done = 0
    while done < most and solved < 2:
        step(net, optimizer, task.kind, source.batch(rng))
        schedule.step()
        done += 1
        if done % EVERY == 0:
            seen = score(net, task, val)
            solved = solved + 1 if seen >= task.solved else 0
            if done >= GIVE_UP * most and at_chance(task, seen):
                break
    parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return Fit(score(net, task, source.held_out(TEST)), done, parameters, time.process_time() - started)


def at_chance(task: Task, score: float) -> bool:
    """Nothing was learned that is worth going on, or a longer gap."""
    return score <= task.chance + AT_CHANCE * (1 - task.chance)


def step(net: Net, optimizer: torch.optim.Optimizer, kind: Kind, batch: Sequences) -> float:
    """One update; the loss: cross entropy, or the squared error."""
    net.train()
    optimizer.zero_grad(set_to_none=True)
    answer = net(torch.from_numpy(batch.x), torch.from_numpy(batch.lengths))
    wanted = torch.from_numpy(batch.y)
    if kind == "class":
        loss = nn.functional.cross_entropy(answer.flatten(0, 1), wanted.flatten())
    else:
        loss = nn.functional.mse_loss(answer.squeeze(-1), wanted)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def score(net: Net, task: Task, sequences: Sequences) -> float:
    """Accuracy over all answers, or 1 - MSE / variance; an answer that is no number scores like chance."""
    net.eval()
    answers = []
    for first in range(0, len(sequences.x), 4 * BATCH):
        rows = slice(first, first + 4 * BATCH)
        answers.append(net(torch.from_numpy(sequences.x[rows]), torch.from_numpy(sequences.lengths[rows])))
    answer = torch.cat(answers).numpy()
    if not np.isfinite(answer).all():
        return task.chance
    if task.kind == "class":
        return float((answer.argmax(-1) == sequences.y).mean())
    return float(1 - ((answer[..., 0] - sequences.y) ** 2).mean() / sequences.y.var())
