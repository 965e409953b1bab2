"""A report: the files that an evaluation leaves in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.calibration_figure import reliability_figure, risk_figure
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.evaluation_page import PICTURES, evaluation_page
from pipeline.report.figures import confusion_figure, per_class_figure
from pipeline.report.scatter import scatter_figure
from pipeline.report.tables import per_class_table, write_json
from pipeline.report.tracks import Track, curves_over_time_figure, ribbons_figure
from pipeline.report.variants_figure import variants_figure

Strips = Sequence[NDArray[np.uint8] | None]


def write_report(
    metrics: dict[str, Any], tracks: Sequence[Track], folder: Path, strips: Strips = (), name: str = ""
) -> None:
    """index.html, the page with everything in it; metrics.json; and the page's pictures.

    Of classes: per_class.csv, confusion.png and per_class.png; over time ribbons.png as well. Of numbers: scatter.png,
    or over time curves_over_time.png. Where they were looked for: calibration.png, risk.png, mistakes.jpg, time.png,
    robustness.png.

    Args:
        metrics: of `evaluate_predictions`, `evaluate_frames` or `evaluate_numbers`, or of `stages.evaluate.evaluate`,
            which found more.
        tracks: the clips that were scored; read where the task is not a class per clip.
        folder: made if needed.
        strips: frames of the clips that `metrics["mistakes"]` names.
        name: of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(metrics, folder / "metrics.json")
    drawn = _draw_answers(metrics, tracks, folder) | _draw_trust(metrics, folder)
    if metrics.get("mistakes"):
        contact_sheet(metrics["mistakes"], strips, folder / "mistakes.jpg")
        drawn.add("mistakes.jpg")
    for former in set(PICTURES) - drawn:  # of an earlier evaluation, which looked for more
        (folder / former).unlink(missing_ok=True)
    evaluation_page(metrics, folder, name, drawn)


def _draw_answers(metrics: dict[str, Any], tracks: Sequence[Track], folder: Path) -> set[str]:
    """What was true and what was said; names of the files."""
    task = metrics["task"]
    if task == "regression":
        scatter_figure(tracks, metrics["r2"], folder / "scatter.png")
        return {"scatter.png"}
    if task == "frame_regression":
        curves_over_time_figure(tracks, folder / "curves_over_time.png")
        return {"curves_over_time.png"}
    unit = "clips" if task == "label" else "moments"
    classes = [row["class"] for row in metrics["per_class"]]
    per_class_table(metrics, folder / "per_class.csv")
    confusion_figure(metrics["confusion"], classes, folder / "confusion.png", unit)
    per_class_figure(metrics["per_class"], folder / "per_class.png", unit)
    if task != "frame_label":
        return {"confusion.png", "per_class.png"}
    ribbons_figure(tracks, classes, folder / "ribbons.png")
    return {"confusion.png", "per_class.png", "ribbons.png"}


def _draw_trust(metrics: dict[str, Any], folder: Path) -> set[str]:
    """How far the answers can be trusted; names of the files."""
    drawn = set()
    if metrics.get("calibration"):
        reliability_figure(metrics["calibration"], folder / "calibration.png")
        risk_figure(metrics["selection"], folder / "risk.png")
        drawn |= {"calibration.png", "risk.png"}
    for key, title in (
        ("time", "the same clips, shown in other ways"),
        ("robustness", "worse copies of the same clips"),
    ):
        if found := metrics.get(key):
            place = folder / f"{key}.png"
            variants_figure(found["rows"], title, place, found["share"], found.get("reference"))
            drawn.add(place.name)
    return drawn
