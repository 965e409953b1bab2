"""From the outcomes of the folds to one row: pooled scores with intervals over groups."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real.cells import Outcome

from pipeline.report.bootstrap import format_interval
from pipeline.report.figures import confusion_figure
from pipeline.report.metrics import evaluate_predictions


@dataclass(frozen=True)
class Row:
    """One configuration on one data set.

    Attributes:
        pooled: metrics over all clips of all rounds; a round tests each clip once.
        shuffled: those of the same models on clips whose moments are in random order.
        folds: top-1 of each fold.
        rounds: top-1 of each round.
        seconds: median of the cells' time per epoch.
        memory: MB, the most that a cell took; None where the system does not tell.
    """

    data: str
    config: str
    kind: str
    pooled: dict[str, Any]
    shuffled: dict[str, Any]
    folds: list[float]
    rounds: list[float]
    seconds: float
    memory: float | None


def make_row(data: str, config: str, kind: str, rounds: Sequence[Sequence[Outcome]]) -> Row:
    """Pool the folds of all rounds; the interval's groups hold their clips of every round."""
    cells = [(number, outcome) for number, folds in enumerate(rounds) for outcome in folds]
    top1 = [[accuracy(outcome.probabilities, outcome.labels) for outcome in folds] for folds in rounds]
    by_round = [
        float(np.average(scores, weights=[len(outcome.labels) for outcome in folds]))
        for scores, folds in zip(top1, rounds, strict=True)
    ]
    peaks = [outcome.peak_memory for _, outcome in cells if outcome.peak_memory is not None]
    return Row(
        data,
        config,
        kind,
        _pooled(cells, [outcome.probabilities for _, outcome in cells]),
        _pooled(cells, [outcome.shuffled for _, outcome in cells]),
        [x for scores in top1 for x in scores],
        by_round,
        statistics.median(outcome.epoch_seconds for _, outcome in cells),
        max(peaks, default=None),
    )


def accuracy(probabilities: Sequence[Sequence[float]], labels: Sequence[int]) -> float:
    """Share of the clips whose most probable class is theirs."""
    return float((np.asarray(probabilities).argmax(axis=1) == np.asarray(labels)).mean())


def _pooled(cells: Sequence[tuple[int, Outcome]], answers: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    failed = [{**item, "path": f"{number} {item['path']}"} for number, outcome in cells for item in outcome.failed]
    paths = [f"{number} {path}" for number, outcome in cells for path in outcome.paths]
    return evaluate_predictions(
        paths=paths,
        labels=np.array([label for _, outcome in cells for label in outcome.labels]),
        probabilities=np.array([p for probabilities in answers for p in probabilities]),
        classes=cells[0][1].classes,
        groups=[group for _, outcome in cells for group in outcome.groups],
        expected=len(paths) + len(failed),
        failed=failed,
    )


def as_text(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    header = ["data", "config", "recurrence", "top-1, pooled", "macro F1, pooled", "top-1 per fold"]
    header += ["shuffled top-1", "shuffled macro F1"]
    several = len(rows[0].rounds) > 1
    header += ["top-1 per round"] if several else []
    header += ["coverage", "majority", "s/epoch", "peak MB"]
    table = [header, ["---"] * len(header)]
    for row in rows:
        m = row.pooled
        cells = [row.data, row.config, row.kind, interval(m, "top1"), interval(m, "macro_f1"), spread(row.folds)]
        cells += [interval(row.shuffled, key) for key in ("top1", "macro_f1")]
        cells += [spread(row.rounds)] if several else []
        cells += [f"{m['n']}/{m['expected']}", f"{m['majority']['rate']:.2f}", f"{row.seconds:.2g}"]
        table.append([*cells, "-" if row.memory is None else f"{row.memory:.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def draw_confusion(row: Row, folder: Path) -> None:
    """The pooled confusion matrix as FOLDER/confusion_DATA_CONFIG_KIND.png."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = [one["class"] for one in row.pooled["per_class"]]
    confusion_figure(row.pooled["confusion"], classes, folder / f"confusion_{row.data}_{row.config}_{row.kind}.png")


def interval(metrics: dict[str, Any], key: str) -> str:
    """A score with its interval."""
    return format_interval(metrics[key], metrics[f"{key}_low"], metrics[f"{key}_high"])


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def as_ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Pooled top-1 per data set, configuration and recurrence."""
    return {f"{row.data}_{row.config}_{row.kind}": row.pooled["top1"] for row in rows}
