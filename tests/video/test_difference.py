from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.video.difference import STILL, difference_grid, difference_image

clips = arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9), st.just(3)))


@given(clips, st.integers(1, 4))
def test_what_stands_still_is_exactly_nothing(frames: np.ndarray, grid: int) -> None:
    assert (difference_image(frames, frames) == STILL).all()
    assert (difference_grid(frames, frames, grid) == 0).all()


@given(clips, st.integers(1, 4))
def test_backwards_the_brighter_is_the_darker(frames: np.ndarray, grid: int) -> None:
    before, now = frames, frames[:, ::-1]
    forth = difference_grid(before, now, grid).reshape(len(frames), 2, grid, grid)
    back = difference_grid(now, before, grid).reshape(len(frames), 2, grid, grid)
    assert np.array_equal(forth, back[:, ::-1])
    assert forth.dtype == np.float32 and forth.min() >= 0 and forth.max() <= 1
    one, other = difference_image(before, now).astype(int) - STILL, difference_image(now, before).astype(int) - STILL
    assert np.array_equal(np.clip(one, -127, 127), -np.clip(other, -127, 127))


@given(clips)
def test_an_image_is_the_signed_change_up_to_half_the_range(frames: np.ndarray) -> None:
    before, now = frames, np.roll(frames, 1, axis=2)
    image = difference_image(before, now)
    assert image.dtype == np.uint8 and image.shape == frames.shape
    assert np.array_equal(image.astype(int) - STILL, np.clip(now.astype(int) - before, -128, 127))


def test_a_bright_square_that_moves_brightens_where_it_comes_and_darkens_where_it_goes() -> None:
    before, now = np.zeros((1, 32, 32, 3), dtype=np.uint8), np.zeros((1, 32, 32, 3), dtype=np.uint8)
    before[0, :8, :8], now[0, :8, 8:16] = 255, 255
    brighter, darker = difference_grid(before, now, 4).reshape(2, 4, 4)
    assert brighter[0, 1] == darker[0, 0] == 1
    assert brighter.sum() == darker.sum() == 1


def test_what_does_not_belong_together_is_refused() -> None:
    one, other = np.zeros((2, 8, 8, 3), dtype=np.uint8), np.zeros((1, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="one shape"):
        difference_image(one, other)
    with pytest.raises(ValueError, match="one shape"):
        difference_grid(one, other, 2)
    with pytest.raises(ValueError, match="no 9 x 9 cells"):
        difference_grid(one, one, 9)
