"""The annotated video: the frame under its heat, the network unrolled beside it, a cursor that moves through both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.report import explanation_drawing as draw
from pipeline.report.drawing import INK, MUTED, shortened
from pipeline.report.explanation import Explanation, LayerView
from pipeline.video.board import Board, Box, Colour, draw_board
from pipeline.video.heatmap import Fit, heated
from pipeline.video.writer import video_writer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (1280, 720)
FPS = 12.5
PER_MOMENT = 0.3
"""Seconds that each moment is on screen at least: a clip of a second is shown slowly."""
LONGEST = 60.0
"""Seconds of the video at most: a longer clip is shown quickly."""
END = 1.2
"""Seconds that the last frame stays."""
LEFT, RIGHT = (24, 520), (668, 1264)
"""Columns of the frame and of the strips, in pixels."""
TOP, BOTTOM = 84, 686


def write_explanation_video(explanation: Explanation, path: str | Path) -> None:
    """Write the video; .webm (VP8) plays in every browser, .mp4 (MPEG-4 part 2) in players.

    Raises:
        OSError: it cannot be written.
    """
    with video_writer(str(path), *SIZE, FPS) as write:
        for frame in video_frames(explanation):
            write(frame)


def video_frames(explanation: Explanation) -> Iterator[NDArray[np.uint8]]:
    """uint8 (720, 1280, 3) one after the other; between moments the heat goes over from one to the next."""
    e = explanation
    board = make_board(e)
    heat, fit = draw.first_heat(e), e.fit
    shown = draw.leading(e)
    for seconds in playback(e):
        frame = e.frames[_last_at(e.frame_times, seconds)]
        step = _last_at(e.times, seconds)
        bars = e.running[step, shown] if e.classes else np.zeros(0)
        picture = heated(frame, _between(heat, e.times, seconds), _known(fit))
        text = f"{seconds:.2f} s" + ("" if e.classes else f"   answer {e.running[step, 0]:.4g}")
        yield draw_board(board, picture, step, bars, text)


def playback(explanation: Explanation) -> NDArray[np.float64]:
    """Clip seconds of each frame of the video."""
    first, last = float(explanation.times[0]), float(max(explanation.times[-1], explanation.frame_times[-1]))
    length = min(max(last, PER_MOMENT * len(explanation.times)), LONGEST)
    return np.concatenate([np.linspace(min(first, 0.0), last, round(length * FPS)), np.full(round(END * FPS), last)])


def make_board(explanation: Explanation) -> Board:
    """Everything that does not change."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    e = explanation
    figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    name = shortened(Path(e.path).name, 40)
    figure.text(LEFT[0] / SIZE[0], 0.955, f"{name}: {e.answer}", size=15, color=INK, va="center")
    _text(figure, LEFT[0], 62, f"warm: what spoke for it ({e.explained})", 10, MUTED)
    _strips(figure, e)
    bars, colours = _bars(figure, e)
    canvas.draw()
    picture = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    bottom = 700 - 32 * max(len(bars), 1) - 24
    frame = (LEFT[0], TOP, LEFT[1], bottom)
    return Board(picture, frame, (RIGHT[0], TOP, RIGHT[1], BOTTOM), len(e.times), bars, colours, (RIGHT[0], 66))


def _strips(figure: Figure, e: Explanation) -> None:
    """Film, importance, every gate and memory from the lowest layer up, the running answer: top to bottom."""
    rows = [(layer, name, values) for layer in e.layers for name, values in _rows(layer)]
    y = float(TOP)
    thumbs = draw.chosen_thumbs(len(e.times))
    tall, wide = e.frames.shape[1:3]
    height = float(np.clip((RIGHT[1] - RIGHT[0]) / len(thumbs) * tall / wide, 24, 62))
    draw.film(_pane(figure, y, height), draw.heated_frames(e, thumbs), len(e.times))
    _label(figure, y, height, "frames")
    y += height + 8
    pane = _pane(figure, y, 56)
    draw.importance(pane, e)
    pane.set_xlim(0, len(e.times))
    pane.set_axis_off()
    _label(figure, y, 56, "importance")
    y += 56 + 8
    answer = 110
    gap = 3
    each = (BOTTOM - answer - 26 - y) / max(1, len(rows))
    before: LayerView | None = None
    for layer, name, values in rows:
        if layer is not before and before is not None:
            y += gap
        before = layer
        draw.strip(_pane(figure, y, each - gap), values[:, _order(layer, values)], signed=_signed(name, values))
        if each >= 11:
            short = layer.name.replace("_backward", " back").replace("layer", "layer ")
            _label(figure, y, each - gap, f"{short}: {name}", 9 if each > 16 else 7)
        y += each
    last = _pane(figure, BOTTOM - answer, answer)
    draw.running(last, e, legend=False)
    last.set_xlim(0, len(e.times))
    last.set_xticks([])
    last.spines[["top", "right", "left", "bottom"]].set_visible(False)
    _label(figure, BOTTOM - answer, answer, "answer so far")
    draw.time_ticks(last, e.times, 8)


def _rows(layer: LayerView) -> list[tuple[str, NDArray[np.float32]]]:
    return [*layer.gates.items(), (draw.memory_name(layer).split()[0], layer.memory)]


def _order(layer: LayerView, values: NDArray[np.float32]) -> NDArray[np.int64]:
    order = layer.order()
    return order[order < values.shape[1]]


def _signed(name: str, values: NDArray[np.float32]) -> bool:
    return name in ("cell", "hidden") or float(values.min()) < 0


def _bars(figure: Figure, e: Explanation) -> tuple[list[Box], list[Colour]]:
    """A place for the probability of each leading class, and its name."""
    boxes: list[Box] = []
    colours: list[Colour] = []
    shown = draw.leading(e) if e.classes else []
    for rank, k in enumerate(shown):
        y = 700 - 32 * (len(shown) - rank)
        _text(figure, LEFT[0], y + 11, shortened(e.classes[k], 20), 11, INK)
        boxes.append((LEFT[0] + 176, y, LEFT[1] - 60, y + 22))
        colour = draw.COLOURS[rank % len(draw.COLOURS)]
        colours.append((int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)))
    return boxes, colours


def _pane(figure: Figure, top: float, height: float) -> Axes:
    """Axes over the columns of the moments, in pixels from the top."""
    width, tall = SIZE
    return figure.add_axes((RIGHT[0] / width, 1 - (top + height) / tall, (RIGHT[1] - RIGHT[0]) / width, height / tall))


def _label(figure: Figure, top: float, height: float, text: str, size: float = 9) -> None:
    figure.text(
        (RIGHT[0] - 10) / SIZE[0], 1 - (top + height / 2) / SIZE[1], text, size=size, color=INK, ha="right", va="center"
    )


def _text(figure: Figure, x: float, y: float, text: str, size: float, colour: str) -> None:
    figure.text(x / SIZE[0], 1 - y / SIZE[1], text, size=size, color=colour, va="center")


def _last_at(times: NDArray[np.float64], seconds: float) -> int:
    """The last of increasing times that is not later; 0 before the first."""
    return max(0, int(np.searchsorted(times, seconds + 1e-9, side="right")) - 1)


def _between(heat: NDArray[np.float32], times: NDArray[np.float64], seconds: float) -> NDArray[np.float32]:
    """Heat (h, w) between the moments before and after."""
    at = _last_at(times, seconds)
    after = min(at + 1, len(times) - 1)
    if after == at or seconds <= times[at]:
        return heat[at]
    share = np.float32((seconds - times[at]) / (times[after] - times[at]))
    return heat[at] * (1 - share) + heat[after] * share


def _known(fit: str) -> Fit:
    assert fit in ("stretch", "crop", "pad")
    return fit  # type: ignore[return-value]
