"""Heat maps lie where the model looked, however a frame was made square; the board of an annotated video."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.transforms import transform_clip
from pipeline.video.board import Board, draw_board
from pipeline.video.heatmap import blend, on_frame, shrink


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(120, 60), (60, 120)])
def test_heat_lies_on_what_the_model_saw_there(fit: str, size: tuple[int, int]) -> None:
    """A bright spot goes through the model's own transform; heat at its cell must come back to the spot."""
    width, height = size
    frame = np.zeros((1, height, width, 3), dtype=np.uint8)
    x, y = width // 2 + 12, height // 2 - 14
    frame[0, y - 4 : y + 5, x - 4 : x + 5] = 255
    square = transform_clip(frame, 64, fit)[0, ..., 0].astype(np.float32)  # type: ignore[arg-type]
    cells = square.reshape(16, 4, 16, 4).mean((1, 3)) / 255
    back = on_frame(cells.astype(np.float32), width, height, fit)  # type: ignore[arg-type]
    assert back.shape == (height, width) and back.min() >= 0 and back.max() <= 1
    found = np.unravel_index(int(back.argmax()), back.shape)
    assert abs(found[0] - y) <= 5 and abs(found[1] - x) <= 5
    if fit == "crop":
        assert not back[0, 0] and not back[-1, -1]  # the model did not see the ends of the longer side


def test_no_heat_leaves_a_frame_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert (blend(frame, np.zeros((20, 30), np.float32)) == frame).all()
    assert (blend(frame, np.ones((20, 30), np.float32)) != frame).mean() > 0.9
    assert shrink(frame[None], 15).shape == (1, 10, 15, 3) and shrink(frame[None], 30) is not frame


def test_the_cursor_moves_and_the_future_is_veiled() -> None:
    picture = np.zeros((100, 200, 3), dtype=np.uint8)
    board = Board(picture, (0, 0, 40, 40), (100, 20, 200, 80), 4, [(0, 60, 40, 70)], [(255, 0, 0)], (0, 95))
    frame = np.full((10, 20, 3), 90, dtype=np.uint8)
    early, late = (draw_board(board, frame, step, np.array([0.5]), "0.10 s") for step in (0, 3))
    assert (picture == 0).all()
    assert early[50, 160, 0] > 150 and late[50, 140, 0] == 0  # future, past
    assert (early[20, 20] == 90).all() and not early[2, 2].any()  # 20 x 10 in 40 x 40: centred, its shape kept
    assert (early[65, 10] == (255, 0, 0)).all() and early[65, 30, 1] > 200
