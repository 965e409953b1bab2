"""The page of an evaluation: everything that was found, in one file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.html import write_page
from pipeline.report.tasks import JUDGED, TITLES
from pipeline.report.text import score_text
from pipeline.report.time_text import RULE

PICTURES = (
    "confusion.png", "per_class.png", "ribbons.png", "scatter.png", "curves_over_time.png", "calibration.png",
    "risk.png", "mistakes.jpg", "time.png", "robustness.png",
)  # fmt: skip


OPTIONAL = (
    "data", "split", "model", "shuffled", "views", "mirrored", "readings", "calibration", "selection", "mistakes", "by",
    "time", "robustness",
)  # fmt: skip
"""What only some evaluations have."""


def evaluation_page(metrics: dict[str, Any], folder: Path, name: str, pictures: set[str]) -> None:
    """Write index.html into a report's folder.

    Args:
        metrics: of `evaluate`; what is missing is left out.
        folder: with the pictures.
        name: of the model.
        pictures: file names of those that belong to this evaluation.
    """
    task = metrics["task"]
    share = JUDGED[task].share
    titles = dict(TITLES)
    if task == "label":
        titles["top5"] = f"top-{min(5, len(metrics['per_class']))}"
    shown = {Path(one).stem: folder / one for one in PICTURES if one in pictures}
    absent: dict[str, Any] = dict.fromkeys(OPTIONAL)
    write_page(
        folder / "index.html",
        "evaluation.html",
        title=f"Evaluation of {name}" if name else "Evaluation",
        m=absent | metrics,
        pictures=shown,
        scores=_scores(metrics, titles),
        baseline=_baseline(metrics),
        judged=JUDGED[task].title,
        share=share,
        titles=titles,
        rule=RULE,
        unit="clips" if task == "label" else "moments",
    )


def _scores(metrics: dict[str, Any], titles: dict[str, str]) -> list[tuple[str, str, str]]:
    """Name, value and interval of each score of the task."""
    found = []
    for key in JUDGED[metrics["task"]].scores:
        value, _, interval = score_text(metrics, key).partition(" ")
        found.append((titles[key], value, interval))
    return found


def _baseline(metrics: dict[str, Any]) -> tuple[str, str, str]:
    """What needs no model: its name, its score, and what it does."""
    if "majority" in metrics:
        majority = metrics["majority"]
        return "majority", f"{majority['rate']:.3f}", f"always '{majority['class']}'"
    base = metrics["baseline"]
    return "baseline MAE", f"{base['mae']:.4g}", f"always {base['value']:.4g}, the training mean"
