"""A report: the files that an evaluation leaves in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.report.figures import confusion_figure, per_class_figure
from pipeline.report.scatter import scatter_figure
from pipeline.report.tables import per_class_table, write_json
from pipeline.report.tracks import Track, curves_over_time_figure, ribbons_figure


def write_report(metrics: dict[str, Any], tracks: Sequence[Track], folder: Path) -> None:
    """metrics.json, and what a person looks at.

    Of classes: per_class.csv, confusion.png and per_class.png; over time ribbons.png as well. Of numbers: scatter.png,
    or over time curves_over_time.png.

    Args:
        metrics: of `evaluate_predictions`, `evaluate_frames` or `evaluate_numbers`.
        tracks: the clips that were scored; read where the task is not a class per clip.
        folder: made if needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(metrics, folder / "metrics.json")
    task = metrics["task"]
    if task == "regression":
        scatter_figure(tracks, metrics["r2"], folder / "scatter.png")
    if task == "frame_regression":
        curves_over_time_figure(tracks, folder / "curves_over_time.png")
    if "per_class" not in metrics:
        return
    unit = "clips" if task == "label" else "moments"
    classes = [row["class"] for row in metrics["per_class"]]
    per_class_table(metrics, folder / "per_class.csv")
    confusion_figure(metrics["confusion"], classes, folder / "confusion.png", unit)
    per_class_figure(metrics["per_class"], folder / "per_class.png", unit)
    if task == "frame_label":
        ribbons_figure(tracks, classes, folder / "ribbons.png")
