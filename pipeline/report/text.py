"""The numbers of an evaluation as the terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.report.bootstrap import format_interval
from pipeline.report.number_metrics import SCORES as NUMBER_SCORES
from pipeline.report.tables import valid_text
from pipeline.report.tasks import JUDGED, TITLES

SHOWN = 10
"""Files without a score that the terminal names; the others are counted."""


def print_metrics(metrics: dict[str, Any], width: int = 100) -> str:
    """The numbers of an evaluation as plain text of at most `width` columns.

    The score with its interval comes first, coverage and what a model that knows nothing would reach under it: an
    accuracy or an error says nothing without them.

    Args:
        metrics: of `evaluate_predictions`, `evaluate_frames` or `evaluate_numbers`.
    """
    task, titles = metrics["task"], dict(TITLES)
    if task == "label":
        titles["top5"] = f"top-{min(5, len(metrics['per_class']))}"
    lines = [(titles[key], score_text(metrics, key)) for key in JUDGED[task].scores]
    if "log_loss" in metrics:
        lines.append(("log loss", f"{metrics['log_loss']:.3f}"))
    if "segments" in metrics:
        counts = metrics["segments"]
        lines.append(("segments", f"{counts['true']} true, {counts['predicted']} predicted"))
    if metrics.get("shuffled"):
        lines.append(("order", "each clip's moments were shuffled"))
    lines += _trust(metrics)
    groups = metrics["groups"]
    clips = f"{metrics['n']}/{metrics['expected']} clips, {groups} group{'s' if groups != 1 else ''}"
    lines += [("coverage", clips + _moments(metrics)), _baseline(metrics)]
    failed = metrics["failed"]
    lines += [("not scored", f"{valid_text(one['path'])}: {one['reason']}") for one in failed[:SHOWN]]
    if len(failed) > SHOWN:
        lines.append(("not scored", f"{len(failed) - SHOWN} more"))
    if metrics["note"]:
        lines.append(("note", metrics["note"]))
    column = max(10, *(len(title) for title, _ in lines))
    text = [f"{title:<{column}} {value}" for title, value in lines]
    if "per_class" in metrics:
        unit = "clips" if task == "label" else "moments"
        text += ["", _per_class_text(metrics["per_class"], unit, width)]
    return "\n".join(text)


def _trust(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """What an evaluation found beside the scores: calibration, threshold, time, robustness, readings."""
    lines = []
    if found := metrics.get("calibration"):
        after = score_text(found["after"], "ece")
        before = "" if found["before"] is None else f", {found['before']['ece']:.3f} before temperature scaling"
        lines.append(("calibration", f"error {after}{before}"))
        selection = metrics["selection"]
        if (kept := selection["selected"]) is not None:
            shares = f"answers {score_text(kept, 'coverage')} of them, {score_text(kept, 'precision')} right"
            lines.append(
                ("abstain", f"below {selection['threshold']:.3g} for precision {selection['precision']:g}: {shares}")
            )
    if metrics.get("views", 1) > 1 or metrics.get("mirrored"):
        mirrored = " and as many mirror images" if metrics["mirrored"] else ""
        lines.append(("views", f"{metrics['views']} of each clip{mirrored}, one answer"))
    if found := metrics.get("time"):
        lines += [("time", f"{row['name']}: {score_text(row, 'score')}") for row in found["rows"]]
        lines.append(("time", found["verdict"]))
    if found := metrics.get("robustness"):
        lines += [("copies", f"{row['name']}: {score_text(row, 'score')}") for row in found["rows"]]
    if metrics.get("readings"):
        count = len(metrics["readings"])
        lines.append(("test split", f"read {count} time{'s' if count != 1 else ''}, this one included"))
    return lines


def _moments(metrics: dict[str, Any]) -> str:
    """How many moments count, where a clip has several."""
    if metrics["task"] == "frame_label":
        left = metrics["unlabelled"]
        return f"; {metrics['moments']} labelled moments" + (f", {left} without a label" if left else "")
    return f"; {metrics['moments']} moments" if metrics["task"] == "frame_regression" else ""


def _baseline(metrics: dict[str, Any]) -> tuple[str, str]:
    """What needs no model: the commonest class, or the mean of the training targets."""
    if "majority" in metrics:
        majority = metrics["majority"]
        return "majority", f"{majority['rate']:.3f} (always answering '{majority['class']}')"
    base = metrics["baseline"]
    r2 = "-" if base["r2"] is None else f"{base['r2']:.3f}"
    known = f"MAE {base['mae']:.4g}, RMSE {base['rmse']:.4g}, R2 {r2}"
    return "baseline", f"{known} (always answering the training mean, {base['value']:.4g})"


def score_text(numbers: dict[str, Any], key: str) -> str:
    """One score of a dictionary with its interval; numbers need more digits than shares of right answers."""
    value, low, high = (numbers[name] for name in (key, f"{key}_low", f"{key}_high"))
    if key not in NUMBER_SCORES or value is None:
        return format_interval(value, low, high)
    one, ends = (".3f", ".3f") if key == "r2" else (".4g", ".3g")
    return f"{value:{one}}" if low is None or high is None else f"{value:{one}} [{low:{ends}}, {high:{ends}}]"


def _per_class_text(per_class: Sequence[dict[str, Any]], unit: str, width: int) -> str:
    """The rows per class as an aligned table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("class", overflow="ellipsis", no_wrap=True)
    table.add_column(unit, justify="right", no_wrap=True)
    for name in ("precision", "recall", "F1"):
        table.add_column(name, no_wrap=True)
    for row in per_class:
        scores = [score_text(row, key) for key in ("precision", "recall", "f1")]
        table.add_row(Text(row["class"]), str(row["support"]), *scores)
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
