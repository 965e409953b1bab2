"""Optical flow: known shifts come out as known numbers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.video.cells import cell_means
from pipeline.video.flow import IMAGE_SCALE, flow_fields, flow_image

HEIGHT, WIDTH = 120, 160


def texture(seed: int = 0) -> np.ndarray:
    """Smooth random colours with detail at the scale of a few pixels, larger than any frame cut out of it."""
    noise = np.random.default_rng(seed).random((200, 240, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def view(right: int, down: int) -> np.ndarray:
    """A frame in which the texture has moved by so many pixels; (1, H, W, 3)."""
    y, x = 40 - down, 40 - right
    return texture()[None, y : y + HEIGHT, x : x + WIDTH]


@pytest.mark.parametrize(("right", "down"), [(6, 0), (-5, 0), (0, 4), (3, -4), (1, 1)])
def test_a_known_shift(right: int, down: int) -> None:
    field = flow_fields(view(0, 0), view(right, down))
    assert field.shape == (1, HEIGHT, WIDTH, 2) and field.dtype == np.float32
    inner = np.median(field[0, 20:-20, 20:-20], axis=(0, 1)) * [WIDTH, HEIGHT]
    np.testing.assert_allclose(inner, [right, down], atol=0.1 * max(abs(right), abs(down)))


def test_a_still_pair_has_no_flow() -> None:
    assert np.abs(flow_fields(view(0, 0), view(0, 0))).max() < 1e-4


def test_a_mirrored_pair_has_mirrored_flow() -> None:
    plain = flow_fields(view(0, 0), view(5, 2))
    mirrored = flow_fields(view(0, 0)[:, :, ::-1], view(5, 2)[:, :, ::-1])
    plain_cells = cell_means(plain, 4).reshape(2, 4, 4)[:, 1:3, 1:3]
    mirrored_cells = cell_means(mirrored, 4).reshape(2, 4, 4)[:, 1:3, 1:3]
    np.testing.assert_allclose(mirrored_cells[0], -plain_cells[0][:, ::-1], atol=0.003)
    np.testing.assert_allclose(mirrored_cells[1], plain_cells[1][:, ::-1], atol=0.003)
    assert (plain_cells[0] > 0.02).all()


def test_the_same_bits_at_any_number_of_threads() -> None:
    threads = cv2.getNumThreads()
    results = []
    for count in (0, 1, 4):
        cv2.setNumThreads(count)
        results.append(flow_fields(view(0, 0), view(4, 3)))
    cv2.setNumThreads(threads)
    assert (results[0] == results[1]).all() and (results[0] == results[2]).all()


def test_pairs_are_independent() -> None:
    both = flow_fields(np.concatenate([view(0, 0), view(2, 0)]), np.concatenate([view(5, 0), view(2, 3)]))
    np.testing.assert_array_equal(both[1:], flow_fields(view(2, 0), view(2, 3)))


def test_grid_is_the_exact_mean_in_its_layout() -> None:
    fields = np.random.default_rng(0).normal(size=(3, 12, 16, 2)).astype(np.float32)
    cells = cell_means(fields, 4).reshape(3, 2, 4, 4)
    expected = fields.reshape(3, 4, 3, 4, 4, 2).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(cells, expected, atol=1e-6)


def test_uneven_grid_uses_every_pixel_once() -> None:
    fields = np.ones((1, 13, 17, 2), dtype=np.float32)
    np.testing.assert_allclose(cell_means(fields, 5), 1.0)
    fields[0, 12, 16] = 100.0
    assert (cell_means(fields, 5) > 1.5).sum() == 2


def test_image_levels() -> None:
    fields = np.array([[0, 0], [IMAGE_SCALE, 0], [-IMAGE_SCALE, 0], [0, IMAGE_SCALE / 2], [9, -9]], np.float32)
    image = flow_image(fields[None, None])
    expected = [[128, 128, 0], [255, 128, 255], [1, 128, 255], [128, 192, 128], [255, 0, 255]]
    np.testing.assert_allclose(image[0, 0], expected, atol=1)
    assert image.dtype == np.uint8


def test_wrong_shapes() -> None:
    frame = np.zeros((1, 20, 20, 3), np.uint8)
    for call in (
        lambda: flow_fields(frame, frame[:, :10]),
        lambda: flow_fields(frame[:, :8], frame[:, :8]),
        lambda: cell_means(np.zeros((1, 4, 4, 2), np.float32), 5),
    ):
        with pytest.raises(ValueError):
            call()
