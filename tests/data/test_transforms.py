from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import AugmentationConfig
from pipeline.data.transforms import Fit, transform_clip

ALL = AugmentationConfig(crop=0.5, flip=0.5, rotate=20.0, brightness=0.4, saturation=0.4)


def one_frame_many_times(count: int = 6) -> np.ndarray:
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return np.stack([frame] * count)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (16, 16), (5, 90)])
def test_every_shape_becomes_a_square(fit: Fit, shape: tuple[int, int]) -> None:
    frames = np.zeros((3, *shape, 3), dtype=np.uint8)
    for augmentation in (None, ALL):
        found = transform_clip(frames, 32, fit, augmentation, 1)
        assert found.shape == (3, 32, 32, 3) and found.dtype == np.uint8


def test_all_frames_of_a_clip_get_the_same_draw() -> None:
    for seed in range(10):
        found = transform_clip(one_frame_many_times(), 32, "stretch", ALL, seed)
        assert (found == found[:1]).all()


def test_the_seed_decides_the_draw_and_nothing_else_does() -> None:
    frames = one_frame_many_times(2)
    first = [transform_clip(frames, 32, "stretch", ALL, seed) for seed in range(8)]
    again = [transform_clip(frames, 32, "stretch", ALL, seed) for seed in reversed(range(8))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({a.tobytes() for a in first}) == 8


def test_evaluation_draws_nothing() -> None:
    frames = one_frame_many_times(2)
    assert len({transform_clip(frames, 32, "stretch", None, seed).tobytes() for seed in range(5)}) == 1


def test_nothing_to_vary_changes_nothing() -> None:
    still = AugmentationConfig(crop=1.0, flip=0.0, rotate=0.0, brightness=0.0, saturation=0.0)
    frames = one_frame_many_times(2)
    assert np.array_equal(transform_clip(frames, 32, "pad", still, 9), transform_clip(frames, 32, "pad", None))


def test_flip_is_a_mirror_image() -> None:
    mirror = AugmentationConfig(crop=1.0, flip=1.0, rotate=0.0, brightness=0.0, saturation=0.0)
    frames = one_frame_many_times(1)
    plain, mirrored = (transform_clip(frames, 40, "crop", a) for a in (None, mirror))
    assert np.array_equal(mirrored, plain[:, :, ::-1])


def test_the_same_seed_gives_the_same_place_at_every_size_with_or_without_colour() -> None:
    """The flow stream is computed at another size and without colour changes; its crop must be that of the frames."""
    ramp = np.broadcast_to(np.linspace(0, 255, 240, dtype=np.uint8)[None, None, :, None], (1, 160, 240, 3)).copy()
    plain = AugmentationConfig(crop=0.4, flip=0.5, rotate=0.0, brightness=0.0, saturation=0.0)
    coloured = AugmentationConfig(crop=0.4, flip=0.5, rotate=0.0, brightness=0.0, saturation=0.5)
    means = set()
    for seed in range(12):
        large = transform_clip(ramp, 80, "stretch", plain, seed)
        small = transform_clip(ramp, 40, "stretch", coloured, seed)  # saturation leaves grey as it is
        halved = large.reshape(1, 40, 2, 40, 2, 3).mean(axis=(2, 4))
        assert np.abs(halved - small).max() < 3
        means.add(round(float(large.mean()), 1))
    assert len(means) > 6


def test_fits_keep_what_they_promise() -> None:
    frames = np.zeros((1, 40, 80, 3), dtype=np.uint8)
    frames[:, :, :20, 0] = 255  # the left quarter is red
    stretched, cropped, padded = (transform_clip(frames, 40, fit) for fit in ("stretch", "crop", "pad"))
    assert (stretched[0, :, :9, 0] > 200).all() and (stretched[0, :, 11:, 0] < 50).all()
    assert (cropped[..., 0] < 50).all()
    assert (padded[0, :9] == 0).all() and (padded[0, -9:] == 0).all() and (padded[0, 15:25, :9, 0] > 200).all()


def test_a_crop_keeps_at_least_its_share() -> None:
    """A ramp over the width: the range that is left over is the width of the crop."""
    ramp = np.broadcast_to(np.linspace(0, 255, 256, dtype=np.uint8)[None, None, :, None], (1, 64, 256, 3)).copy()
    crop = AugmentationConfig(crop=0.49, brightness=0.0, saturation=0.0)
    widths = []
    for seed in range(40):
        found = transform_clip(ramp, 64, "stretch", crop, seed)[0, :, :, 0].astype(int)
        widths.append((found.max() - found.min()) / 255)
    assert min(widths) > 0.65  # the square root of 0.49 is 0.7; the resize takes half a cell at either end
    assert min(widths) < 0.9


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_frames_that_are_only_fitted_have_the_bits_that_albumentations_gives(fit: Fit) -> None:
    """Evaluation does without albumentations; training goes through it. Both must see the same frames."""
    still = AugmentationConfig(crop=1.0, flip=0.0, rotate=0.0, brightness=0.0, saturation=0.0)
    rng = np.random.default_rng(5)
    for _ in range(60):
        height, width, size = (int(x) for x in rng.integers(3, 120, 3))
        frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        assert np.array_equal(transform_clip(frames, size, fit), transform_clip(frames, size, fit, still)), (
            height, width, size,
        )  # fmt: skip
