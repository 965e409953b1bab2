"""By which numbers each task is judged, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.report.frame_metrics import SCORES as FRAME_SCORES
from pipeline.report.number_metrics import SCORES as NUMBER_SCORES


@dataclass(frozen=True)
class Judged:
    """How one task is judged.

    Attributes:
        validation: key of the validation score in a training's history.
        title: its name on a page and on the screen.
        share: it lies in 0..1, and more is better; otherwise it is an error in the target's unit.
        scores: keys of the test scores, the first one first; each has an interval.
        others: keys of what is quoted beside them.
    """

    validation: str
    title: str
    share: bool
    scores: tuple[str, ...]
    others: tuple[str, ...]


COVERAGE = ("coverage", "n", "expected")
NUMBERS = Judged("val_mae", "MAE", False, NUMBER_SCORES, (*COVERAGE, "moments"))
JUDGED = {
    "label": Judged("val_top1", "top-1", True, ("top1", "top5", "macro_f1"), (*COVERAGE, "log_loss")),
    "frame_label": Judged(
        "val_frame_accuracy", "frame accuracy", True, FRAME_SCORES, (*COVERAGE, "moments", "log_loss")
    ),
    "regression": NUMBERS,
    "frame_regression": NUMBERS,
}
TITLES = {
    "top1": "top-1",
    "macro_f1": "macro F1",
    "frame_accuracy": "frame accuracy",
    "edit": "edit score",
    "f1_10": "F1@10",
    "f1_25": "F1@25",
    "f1_50": "F1@50",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2",
}
"""What the scores are called on the screen."""


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation that are quoted, without its tables."""
    judged = JUDGED[metrics["task"]]
    named = {k: metrics[k] for key in judged.scores for k in (key, f"{key}_low", f"{key}_high")}
    return named | {key: metrics[key] for key in judged.others}
