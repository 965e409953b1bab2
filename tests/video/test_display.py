"""Turning, mirroring, square pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.video.display import Matrix, is_mirrored, square_size, turn

PICTURE = np.arange(6, dtype=np.uint8).reshape(2, 3)[..., None].repeat(3, axis=2)
SIGNS = [(one, other) for one in (-1, 1) for other in (-1, 1)]
MATRICES = [(a, 0, 0, d) for a, d in SIGNS] + [(0, b, c, 0) for b, c in SIGNS]


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_matrix_moves_every_pixel_where_it_says(matrix: Matrix) -> None:
    a, b, c, d = matrix
    shown = turn(PICTURE, matrix)
    places = {(a * x + c * y, b * x + d * y): PICTURE[y, x, 0] for y in range(2) for x in range(3)}
    left, top = min(x for x, _ in places), min(y for _, y in places)
    for (x, y), value in places.items():
        assert shown[y - top, x - left, 0] == value
    assert shown.size == PICTURE.size


def test_mirrors_are_told_from_turns() -> None:
    assert is_mirrored((0, 1, 1, 0)) and is_mirrored((-1, 0, 0, 1))
    assert not is_mirrored((0, 1, -1, 0)) and not is_mirrored((-1, 0, 0, -1)) and not is_mirrored((1, 0, 0, 1))


@pytest.mark.parametrize(
    ("size", "aspect", "turned", "expected"),
    [
        ((640, 360), 2.0, False, (1280, 360)),
        ((720, 576), 16 / 15, False, (768, 576)),
        ((576, 720), 16 / 15, True, (576, 768)),
        ((640, 480), 0.5, False, (320, 480)),
        ((854, 480), 1280 / 1281, False, (854, 480)),
        ((640, 480), 1.0, False, (640, 480)),
        ((640, 480), 0.0, False, (640, 480)),
        ((640, 480), 1e6, False, (640, 480)),
        ((640, 480), float("nan"), False, (640, 480)),
        ((1, 1), 0.2, False, (1, 1)),
    ],
)
def test_square_pixels(size: tuple[int, int], aspect: float, turned: bool, expected: tuple[int, int]) -> None:
    assert square_size(*size, aspect, turned) == expected
