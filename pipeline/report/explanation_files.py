"""The files of one explanation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.report.explanation import Explanation

PARTS = ("video", "picture", "page", "numbers")
"""What can be written of an explanation."""


def write_explanation(explanation: Explanation, folder: Path, parts: Sequence[str] = PARTS) -> None:
    """video.webm, picture.png, page.html; explanation.json and three tables.

    Args:
        explanation: one clip's.
        folder: is there.
        parts: of `PARTS`.
    """
    if "picture" in parts:
        from pipeline.report.explanation_figure import explanation_figure

        explanation_figure(explanation, folder / "picture.png")
    if "video" in parts:
        from pipeline.report.explanation_video import write_explanation_video

        write_explanation_video(explanation, folder / "video.webm")
    if "page" in parts:
        from pipeline.report.explanation_page import write_explanation_page

        write_explanation_page(explanation, folder / "page.html")
    if "numbers" in parts:
        from pipeline.report.explanation_tables import write_numbers

        write_numbers(explanation, folder)
