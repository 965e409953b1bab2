"""What the run came to, as Markdown between two marks of docs/gap_length.md, and as one flat object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab.claims import verdicts
from lab.grid import HIDDEN
from lab.summary import Point, Results, Variant
from lab.tasks import Task
from pipeline.errors import DataError

BEGIN, END = "<!-- gap_length: begin -->", "<!-- gap_length: end -->"


def fill_page(path: Path, text: str) -> None:
    """Replace what stands between the marks; everything else on the page is people's.

    Raises:
        DataError: the page, or a mark in it, is missing.
    """
    try:
        page = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); choose another --page") from None
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DataError(f"{path}: the lines {BEGIN} and {END} must each stand there once, in this order")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}", encoding="utf-8")


def render(results: Results, notes: Mapping[str, str]) -> str:
    """Everything that a run writes into the page: how it ran, the table, the claims, the scores in full."""
    lines = [f"- {name}: {value}" for name, value in notes.items()]
    parts = ["\n".join(lines), "### How far back", summary_table(results), "### What people say", verdicts(results)]
    parts.append("### All scores")
    parts += [f"**{task.title}**, by {task.gap}\n\n{score_table(results, task)}" for task in results.tasks]
    return "\n\n".join(parts)


def summary_table(results: Results) -> str:
    """A row per member and initialisation: parameters, time, skill, and the longest gap solved in each task."""
    heads = ["member", "start", "parameters", "time / LSTM", "skill", *(task.name for task in results.tasks)]
    rows = []
    for variant in results.variants():
        parameters, skill = results.parameters(variant), results.skill(variant, results.tasks)
        time = results.times.get(variant[0])
        cells = [
            variant[0],
            variant[1] or "",
            "" if parameters is None else f"{parameters:,}",
            "" if time is None else f"{time:.2f}",
            "" if skill is None else f"{skill:.2f}",
        ]
        rows.append(cells + [_reach(results, task, variant) for task in results.tasks])
    return _table(heads, rows)


def _reach(results: Results, task: Task, variant: Variant) -> str:
    """Longest gap solved; with ≥ where that is the longest tried; none; empty where none was tried."""
    points = results.points(task, variant)
    if not points:
        return ""
    reach = results.solved(task, variant)
    if reach is None:
        return "none"
    return f"≥ {reach}" if reach == points[-1].gap else str(reach)


def score_table(results: Results, task: Task) -> str:
    """A row per member and initialisation, a column per gap: mean over the seeds (lowest to highest)."""
    gaps = sorted({cell.gap for cell in results.rows if cell.task == task.name})
    rows = []
    for variant in results.variants():
        points = {point.gap: point for point in results.points(task, variant)}
        if points:
            rows.append([variant[0], variant[1], *(_score(points.get(gap)) for gap in gaps)])
    return _table(["member", "start", *(str(gap) for gap in gaps)], rows)


def _score(point: Point | None) -> str:
    if point is None:
        return ""
    mark = "†" if point.assumed == point.seeds else "‡" if point.assumed else ""
    spread = f" ({point.low:.2f} to {point.high:.2f})" if point.high - point.low >= 0.005 else ""
    return f"{point.mean:.2f}{mark}{spread}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def flat(results: Results) -> dict[str, float]:
    """`adding/lstm/default/gap_50`: mean score; `time/gru`: time over the LSTM's; `skill/lstm/orthogonal`."""
    found = {}
    for variant in results.variants():
        name = "/".join(part.replace(" ", "_") for part in variant if part)
        for task in results.tasks:
            for point in results.points(task, variant):
                found[f"{task.name}/{name}/gap_{point.gap}"] = point.mean
        skill = results.skill(variant, results.tasks)
        if skill is not None:
            found[f"skill/{name}"] = skill
    found |= {f"time/{member}": ratio for member, ratio in results.times.items()}
    return {name: round(value, 4) for name, value in found.items()}


def parameters_of(results: Results) -> dict[str, object]:
    """What MLflow records as the run's parameters."""
    plain = {
        f"{task.name}.{key}": getattr(task, key) for task in results.tasks for key in ("gaps", "updates", "solved")
    }
    return {"hidden": HIDDEN, "seeds": results.seeds, "tasks": " ".join(t.name for t in results.tasks), **plain}
