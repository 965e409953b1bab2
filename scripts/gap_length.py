"""How far back can each recurrence look? Every member on six tasks whose answer lies further and further back.

    .venv/bin/python scripts/gap_length.py            the page docs/gap_length.md and its picture; under 45 minutes
    .venv/bin/python scripts/gap_length.py --quick    short gaps, one seed, five members; under 3 minutes
    .venv/bin/python scripts/gap_length.py --json     one flat object of named scores and ratios

Finished cells are remembered in OUT/cells.jsonl: a run that was killed goes on, and so does one with more members,
gaps or seeds. Remove OUT to measure everything again. Cells run in a process per core with one thread each; what a
cell scores depends on its seed alone. The time of a training step is measured before them, with nothing else running.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import page, plot
from lab.cues import prepare_cues
from lab.grid import Cell, Row, chains, members, read_rows, run
from lab.sources import TASKS, cue_file, save
from lab.summary import Results
from lab.tasks import Task
from lab.timing import time_ratios
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import pipeline
from pipeline import UserError
from pipeline.config import TrackingConfig
from pipeline.errors import ConfigError
from pipeline.stages.progress import say
from pipeline.tracking.runs import start

ROOT = Path(__file__).resolve().parents[1]
QUICK_MEMBERS = ("hmm", "none", "rnn", "gru", "lstm")
QUICK_GAPS = (0, 5, 10, 20)
QUICK_UPDATES = 300
QUICK_CLIPS = {"train": 64, "val": 32, "test": 48}


@dataclass(frozen=True)
class Plan:
    """What a run is asked for: tasks, members, gaps (None: all), seeds, and clips per split of the cue videos."""

    tasks: tuple[Task, ...]
    members: tuple[str, ...]
    gaps: tuple[int, ...] | None
    seeds: int
    clips: dict[str, int] | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers, which read it when they start
    try:
        plan = make_plan(options)
        results, notes = measure(plan, options)
        options.out.mkdir(parents=True, exist_ok=True)
        text = page.render(results, notes)
        (options.out / "gap_length.md").write_text(text + "\n", encoding="utf-8")
        plot.draw(results, options.out / "gap_length.png")
        record(results, plan, options, notes)
        if options.page is not None:
            page.fill_page(options.page, text)
            plot.draw(results, options.page.parent / "img" / "gap_length.png")
    except UserError as error:
        print(f"gap_length: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(page.flat(results)) if options.json else page.summary_table(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="does it run? short gaps, one seed, five members")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object instead of the table")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"of {', '.join(task.name for task in TASKS)}")
    parser.add_argument("--members", nargs="+", metavar="KIND", help="values of recurrent.kind, and hmm")
    parser.add_argument("--gaps", nargs="+", type=int, metavar="N", help="only these gaps of each task")
    parser.add_argument("--seeds", type=int, help="trainings of each cell (default: 3; --quick: 1)")
    parser.add_argument("--minutes", type=float, default=40, help="begin no cell after this time (default: 40)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="cells at once (default: one a core)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gap_length"), help="folder (default: runs/gap_length)")
    parser.add_argument(
        "--page", type=Path, help="also write table and picture into this page, such as docs/gap_length.md"
    )
    parser.add_argument("--no-tracking", action="store_true", help="record nothing in MLflow")
    return parser


def make_plan(options: argparse.Namespace) -> Plan:
    """The plan that the command line describes.

    Raises:
        ConfigError: a task or member that does not exist, or numbers that leave nothing to do.
    """
    by_name = {task.name: task for task in TASKS}
    known = members()
    for given, there, name in ((options.tasks, by_name, "task"), (options.members, known, "member")):
        for word in given or ():
            if word not in there:
                raise ConfigError(f"there is no {name} '{word}'; choose from {', '.join(there)}")
    seeds = options.seeds if options.seeds is not None else 1 if options.quick else 3
    if seeds < 1 or options.processes < 1 or options.minutes <= 0:
        raise ConfigError("--seeds, --processes and --minutes must be above 0")
    if options.quick and options.page is not None:
        raise ConfigError("--quick measures too little for a page; leave out --page")
    tasks = [by_name[name] for name in options.tasks or by_name]
    names = options.members or (QUICK_MEMBERS if options.quick else known)
    gaps, clips = options.gaps, None
    if options.quick:
        tasks = [replace(task, updates=min(task.updates, QUICK_UPDATES)) for task in tasks]
        gaps, clips = options.gaps or QUICK_GAPS, QUICK_CLIPS
    plan = Plan(tuple(tasks), tuple(names), tuple(gaps) if gaps else None, seeds, clips)
    if not chains(plan.tasks, plan.members, plan.seeds, plan.gaps):
        raise ConfigError("none of the tasks has one of these gaps; leave out --gaps to see all")
    return plan


def measure(plan: Plan, options: argparse.Namespace) -> tuple[Results, dict[str, str]]:
    """Time, prepare, train. The results, and what the page says about how they came about."""
    began = time.monotonic()
    folder = options.out / ("quick" if options.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [name for name in plan.members if name not in ("hmm", "none")]
    times = _times(folder / "times.json", kinds)
    todo = chains(plan.tasks, plan.members, plan.seeds, plan.gaps)
    prepare(plan, todo, folder)
    deadline = began + 60 * options.minutes
    total = sum(len(chain) for chain in todo)
    with progress(total) as show:
        rows, cut = run(todo, plan.tasks, folder, options.processes, deadline, show)
    calls = [*_calls(folder / "calls.json"), (time.monotonic() - began) / 60]
    (folder / "calls.json").write_text(json.dumps(calls), encoding="utf-8")
    notes = {
        "Run": f"{len(rows)} trainings and {total - len(rows)} left out "
        f"({cut} chains of them for want of time, the others because a shorter gap was at chance); "
        f"{plan.seeds} seed{'s' if plan.seeds > 1 else ''}",
        "Time": f"{sum(row.fit.seconds for row in rows.values()) / 60:.0f} minutes of one core in trainings; "
        f"{sum(calls):.0f} minutes with {options.processes} processes"
        + (f", in {len(calls)} calls" if calls[1:] else ""),
    }
    return Results(plan.tasks, rows, plan.seeds, plan.gaps, times), notes


def _calls(path: Path) -> list[float]:
    """Minutes that each former call took."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def _times(path: Path, kinds: Sequence[str]) -> dict[str, float]:
    """Ratios of time, measured once per folder and set of members."""
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not set(kinds) <= known.keys():
        say("timing a training step of each member")
        known = time_ratios(kinds)
        path.write_text(json.dumps(known), encoding="utf-8")
    return {kind: known[kind] for kind in kinds}


def prepare(plan: Plan, todo: Sequence[Sequence[Cell]], folder: Path) -> None:
    """Write and encode the cue videos of the gaps that cells are still wanted of."""
    known = read_rows(folder / "cells.jsonl", plan.tasks)
    gaps = sorted({cell.gap for chain in todo for cell in chain if cell.task == "cue" and cell not in known})
    for gap in gaps:
        file = cue_file(folder, gap)
        if not file.exists():
            say(f"cue videos with {gap} distractor frames")
            config = pipeline.load_config(str(ROOT / "configs/lab/cue.yaml"))
            save(file, prepare_cues(config, folder / "cue" / f"gap_{gap}", gap, plan.clips))


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """A bar with the last score; yields what `run` calls with each row."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task("cells", total=total)

        def show(row: Row, remembered: bool) -> None:
            cell = row.cell
            line = f"{cell.task} {cell.gap} {cell.member} {cell.init} seed {cell.seed}: {row.fit.score:.3f}"
            shown.update(task, advance=1, description=line)
            if not console.is_terminal and not remembered:
                say(f"{line}  {row.fit.updates} updates, {row.fit.seconds:.1f} s")

        yield show


def record(results: Results, plan: Plan, options: argparse.Namespace, notes: dict[str, str]) -> None:
    """One MLflow run: parameters, a metric per cell of the tables, the table and the picture.

    Raises:
        TrackingError: the store cannot be used.
    """
    run = start(TrackingConfig(enabled=not options.no_tracking, experiment="gap_length"), "gap_length")
    run.params(page.parameters_of(results) | {"members": " ".join(plan.members), "quick": options.quick})
    run.tags({f"gap_length.{name}": value for name, value in notes.items()})
    run.metrics(page.flat(results), step=0)
    run.artifact(options.out / "gap_length.md")
    run.artifact(options.out / "gap_length.png")
    run.finish()


if __name__ == "__main__":
    sys.exit(main())
