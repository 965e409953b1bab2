"""B20: each DataLoader worker draws the same augmentations, and each epoch repeats them (albumentations in workers)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import AugmentationConfig, Config
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.stages.extract import training_views
from pipeline.stages.sources import FileSource
from pipeline.video.reader import probe
from pipeline.video.writer import write_video

CLIPS, EPOCHS = 8, 3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[ClipFile]:
    """One clip under many names: whatever differs between two of them was drawn."""
    path = str(tmp_path_factory.mktemp("one") / "clip.mkv")
    write_video(path, np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8), 10.0)
    return [ClipFile(path, index % 2, probe(path).times, 3.0, f"{index:012x}" + 52 * "0") for index in range(CLIPS)]


@pytest.fixture(scope="module")
def config(make_config: Any) -> Config:
    return make_config(augmentation=AugmentationConfig(crop=0.5, flip=0.5))  # type: ignore[no-any-return]


def epochs(files: list[ClipFile], config: Config, workers: int, seed: int = 0) -> np.ndarray:
    """uint8 (EPOCHS, CLIPS, T, 3, S, S): what a training would see."""
    source = FileSource(files, Plan.of(config), config.training, workers, seed)
    order = list(range(len(files)))
    return np.stack(
        [torch.cat([batch.inputs["rgb"] for batch in source.batches(epoch, order)]).numpy() for epoch in range(EPOCHS)]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_no_two_clips_and_no_two_epochs_get_the_same_draw(files: list[ClipFile], config: Config, workers: int) -> None:
    seen = epochs(files, config, workers)
    assert seen.shape[:2] == (EPOCHS, CLIPS)
    views = {seen[epoch, clip].tobytes() for epoch in range(EPOCHS) for clip in range(CLIPS)}
    assert len(views) == EPOCHS * CLIPS


def test_runs_and_numbers_of_workers_agree_and_seeds_do_not(files: list[ClipFile], config: Config) -> None:
    expected = epochs(files, config, 0)
    for workers in (1, 2, 2):
        torch.manual_seed(workers)  # a seed of the process must not matter
        assert np.array_equal(epochs(files, config, workers), expected)
    assert not np.array_equal(epochs(files, config, 0, seed=1), expected)


def test_the_order_of_arrival_does_not_matter(files: list[ClipFile], config: Config) -> None:
    source = FileSource(files, Plan.of(config), config.training, 2, 0)
    order = [5, 0, 7, 3, 1, 6, 2, 4]
    turned = torch.cat([batch.inputs["rgb"] for batch in source.batches(1, order)]).numpy()
    assert np.array_equal(turned[np.argsort(order)], epochs(files, config, 0)[1])


def test_all_frames_of_a_clip_share_the_draw(tmp_path: Path, config: Config) -> None:
    path = str(tmp_path / "still.mkv")
    frame = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    write_video(path, np.stack([frame] * 10), 10.0)
    source = FileSource([ClipFile(path, 0, probe(path).times)], Plan.of(config), config.training, 2, 0)
    for epoch in range(EPOCHS):
        (batch,) = source.batches(epoch, [0])
        assert batch.lengths[0] > 1 and (batch.inputs["rgb"] == batch.inputs["rgb"][:, :1]).all()


def test_stored_views_of_two_clips_differ(files: list[ClipFile]) -> None:
    views = [view for requests in training_views(files, 4) for _, view in requests[1:]]
    assert len(set(views)) == 3 * CLIPS
