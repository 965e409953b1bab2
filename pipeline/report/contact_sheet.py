"""A contact sheet: the most confident mistakes, each as a strip of frames with what was said and what is true."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.disk import replacing
from pipeline.report.drawing import DPI, MUTED, ORANGE, new_figure, shortened

GAP = 3
"""White pixels between two frames."""


def contact_sheet(
    mistakes: Sequence[dict[str, Any]], strips: Sequence[NDArray[np.uint8] | None], path: str | Path
) -> None:
    """Two columns of strips, the surest mistake first.

    Args:
        mistakes: of `examine`, at least one.
        strips: for each of them its frames uint8 (T, S, S, 3) RGB; None where they cannot be read.
        path: JPEG file to write.
    """
    columns = 2 if len(mistakes) > 1 else 1
    rows = -(-len(mistakes) // columns)
    figure = new_figure(5.4 * columns, 0.98 * rows + 0.1)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, mistake, strip in zip(panels, mistakes, strips, strict=False):
        if strip is None:
            axes.text(0.5, 0.5, "cannot be read any more", ha="center", size=9, color=MUTED)
        else:
            axes.imshow(_strip(strip), interpolation="lanczos")
        said = f"said {shortened(mistake['predicted'])} ({mistake['confidence']:.2f})"
        axes.set_title(f"{said}, is {shortened(mistake['true'])}", size=9, color=ORANGE, loc="left", pad=3)
        name = shortened(os.path.basename(mistake["path"]), 34)
        axes.set_title(name, size=7.5, color=MUTED, loc="right", pad=3)
    figure.set_facecolor("white")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(Path(path)) as temporary:
        settings = {"quality": 84, "optimize": True}
        figure.savefig(temporary, format="jpeg", dpi=DPI, bbox_inches="tight", pad_inches=0.1, pil_kwargs=settings)


def _strip(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (T, S, S, 3) side by side; as wide as eight frames however few there are."""
    size = frames.shape[1]
    sheet = np.full((size, 8 * (size + GAP) - GAP, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(frames[:8]):
        left = number * (size + GAP)
        sheet[:, left : left + size] = frame
    return sheet
