"""Which cells there are, and how they are computed: in processes, remembered one by one.

A cell is (task, member, initialisation, seed, gap). The gaps of the same four are a chain: they run from the shortest
on, and once a score is at chance the longer ones are not tried; they count as chance.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args, get_type_hints

import torch

from lab.fit import CLIP, GIVE_UP, RATE, Fit, at_chance, fit
from lab.hmm import ITERATIONS, STATES, fit_hmm
from lab.sources import BATCH, HMM_SEQUENCES, SCORED, open_source
from lab.tasks import Task
from pipeline.config import RecurrentConfig

HIDDEN = 32
"""Size of every member's hidden state."""
NEEDS_MAP = "conv_lstm"
"""Reads feature maps; here every step is a vector."""
SLOW = {"layer_norm_lstm": 200, "mlstm": 60}
"""Members whose step takes many times an LSTM's run after all others, with gaps up to this one."""
INITS = {
    "default": {"initialisation": "default"},
    "orthogonal": {"initialisation": "orthogonal"},
    "no forget bias": {"initialisation": "orthogonal", "forget_bias": 0.0},
    "chrono": {"initialisation": "chrono"},
}
"""What a member starts from: as PyTorch draws it, and three of ours."""
EXTRA_INITS = {"lstm": ("no forget bias", "chrono"), "gru": ("chrono",)}
LONG = {"adding": 400}
"""A gap beyond a task's own, for the members of EXTRA_INITS alone: the comparison at T = 600 of Bai et al. (2018)."""


@dataclass(frozen=True)
class Cell:
    """One training: which, and of what."""

    task: str
    member: str
    init: str
    seed: int
    gap: int


@dataclass(frozen=True)
class Row:
    """A finished cell.

    Attributes:
        cell: which.
        fit: what came out.
        settings: of the training; a row of other settings is not this cell's.
    """

    cell: Cell
    fit: Fit
    settings: str


def members() -> list[str]:
    """Every recurrence that the configuration knows and that reads vectors, and the hidden Markov model."""
    kinds = get_args(get_type_hints(RecurrentConfig)["kind"])
    return ["hmm", *(kind for kind in kinds if kind != NEEDS_MAP)]


def initialisations(member: str) -> tuple[str, ...]:
    """Names in INITS that are compared for a member; those without weights over time have one, with an empty name."""
    if member in ("none", "hmm"):
        return ("",)
    return ("default", "orthogonal", *EXTRA_INITS.get(member, ()))


def gaps_of(task: Task, member: str, chosen: Sequence[int] | None) -> list[int]:
    """The gaps a member is tried with, shortest first."""
    gaps = [*task.gaps, *([LONG[task.name]] if task.name in LONG and member in EXTRA_INITS else [])]
    return [gap for gap in gaps if gap <= SLOW.get(member, gap) and (chosen is None or gap in chosen)]


def chains(tasks: Iterable[Task], names: Iterable[str], seeds: int, gaps: Sequence[int] | None) -> list[list[Cell]]:
    """All chains of cells, one seed after the other, slow members last, so that a run cut short has what it can."""
    found = [
        [Cell(task.name, member, init, seed, gap) for gap in gaps_of(task, member, gaps)]
        for seed in range(seeds)
        for task in tasks
        for member in names
        for init in initialisations(member)
        if member != "hmm" or task.hmm
    ]
    return sorted((chain for chain in found if chain), key=lambda chain: chain[0].member in SLOW)


def settings(task: Task, member: str) -> str:
    """All that decides a score besides the cell and the code."""
    if member == "hmm":
        return f"states={STATES} iterations={ITERATIONS} sequences={HMM_SEQUENCES} scored={SCORED}"
    recipe = f"batch={BATCH} rate={RATE} clip={CLIP} give_up={GIVE_UP}"
    return f"hidden={HIDDEN} updates={task.updates} {recipe} scored={SCORED}"


def configuration(cell: Cell, steps: int) -> RecurrentConfig:
    """The recurrence of a cell; chrono initialisation is told the number of steps."""
    base = RecurrentConfig(kind=cell.member, hidden=HIDDEN, layers=1, dropout=0.0)  # type: ignore[arg-type]
    if not cell.init:
        return base
    chosen = dict(INITS[cell.init])
    return replace(base, **chosen, chrono_steps=steps if cell.init == "chrono" else 0)


def compute(cell: Cell, task: Task, folder: Path) -> Row:
    """Train and score one cell; runs in a worker."""
    source = open_source(task, cell.gap, cell.seed, folder)
    if cell.member == "hmm":
        return Row(cell, fit_hmm(task, source, cell.seed), settings(task, cell.member))
    steps = source.held_out(1).x.shape[1]
    return Row(cell, fit(task, source, configuration(cell, steps), cell.seed), settings(task, cell.member))


def read_rows(path: Path, tasks: Iterable[Task]) -> dict[Cell, Row]:
    """Rows of earlier runs with today's settings; what a killed process left half written is passed over."""
    by_name = {task.name: task for task in tasks}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            stored = json.loads(line)
        except json.JSONDecodeError:
            continue
        row = Row(Cell(**stored["cell"]), Fit(**stored["fit"]), stored["settings"])
        task = by_name.get(row.cell.task)
        if task is not None and row.settings == settings(task, row.cell.member):
            found[row.cell] = row
    return found


def append_row(path: Path, row: Row) -> None:
    """One more finished cell, on disk before the next begins. A line that was cut off is not continued."""
    with path.open("a+b") as file:
        if file.tell() and not _ends_line(file.fileno()):
            file.write(b"\n")
        file.write(json.dumps(asdict(row)).encode() + b"\n")


def _ends_line(handle: int) -> bool:
    return os.pread(handle, 1, os.fstat(handle).st_size - 1) == b"\n"


def one_thread() -> None:
    """The nets are tiny: a process per core is faster than a thread per core."""
    torch.set_num_threads(1)


def run(
    todo: Sequence[list[Cell]],
    tasks: Iterable[Task],
    folder: Path,
    processes: int,
    deadline: float,
    on_row: Callable[[Row, bool], None],
) -> tuple[dict[Cell, Row], int]:
    """Compute all chains, going on from the rows on disk.

    Args:
        todo: the chains.
        tasks: those they are of.
        folder: holds cells.jsonl and the features of the cue videos.
        processes: how many cells at once.
        deadline: time.monotonic() after which no cell is begun.
        on_row: called with each row and whether it was on disk before.

    Returns:
        Rows by cell, and how many chains the deadline cut short.
    """
    by_name = {task.name: task for task in tasks}
    path = folder / "cells.jsonl"
    known = read_rows(path, by_name.values())
    remembered = set(known)
    rows: dict[Cell, Row] = {}
    waiting = deque(deque(chain) for chain in todo)
    running: dict[Future[Row], deque[Cell]] = {}
    cut = 0
    with workers(processes) as pool:
        while waiting or running:
            while waiting and len(running) < processes:
                chain = waiting.popleft()
                for row in take_known(chain, known, by_name):
                    rows[row.cell] = row
                    on_row(row, row.cell in remembered)
                if chain and time.monotonic() > deadline:
                    cut += 1
                elif chain:
                    running[pool.submit(compute, chain[0], by_name[chain[0].task], folder)] = chain
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                row = future.result()
                append_row(path, row)
                known[row.cell] = row
                waiting.appendleft(running.pop(future))
    return rows, cut


def workers(processes: int) -> Executor:
    """So many processes, started anew; one is this process itself."""
    if processes == 1:
        return ThreadPoolExecutor(1, initializer=one_thread)
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=one_thread)


def take_known(chain: deque[Cell], known: Mapping[Cell, Row], by_name: Mapping[str, Task]) -> list[Row]:
    """Take the finished cells off a chain; one at chance empties it."""
    taken = []
    while chain and chain[0] in known:
        row = known[chain.popleft()]
        taken.append(row)
        if at_chance(by_name[row.cell.task], row.fit.score):
            chain.clear()
    return taken
