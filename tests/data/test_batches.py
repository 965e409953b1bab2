from __future__ import annotations

import gc
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import FlowConfig, VideoConfig
from pipeline.data.batches import ClipFile, ClipLoader, collate, stream_clips, view_seed
from pipeline.data.clips import Plan
from pipeline.errors import Reason, VideoError
from pipeline.video.reader import probe

PLAN = Plan(VideoConfig(frames=4, size=16), FlowConfig())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_padding_is_zeros_after_the_real_moments(lengths: list[int], width: int) -> None:
    clips = [
        {"rgb": np.full((t, 3, 2, 2), 200, dtype=np.uint8), "flow": np.full((t, width), 0.5, dtype=np.float32)}
        for t in lengths
    ]
    batch = collate(clips, list(range(len(lengths))))
    assert batch.lengths.tolist() == lengths and batch.lengths.dtype == torch.int64
    assert batch.labels.tolist() == list(range(len(lengths))) and batch.labels.dtype == torch.int64
    assert batch.inputs["rgb"].dtype == torch.uint8 and batch.inputs["flow"].dtype == torch.float32
    assert batch.inputs["rgb"].shape == (len(lengths), max(lengths), 3, 2, 2)
    for row, length in enumerate(lengths):
        assert (batch.inputs["rgb"][row, :length] == 200).all() and (batch.inputs["rgb"][row, length:] == 0).all()
        assert (batch.inputs["flow"][row, :length] == 0.5).all() and (batch.inputs["flow"][row, length:] == 0).all()


def test_a_batch_whose_files_all_failed_is_empty_and_says_so() -> None:
    error = VideoError("a.mp4", Reason.EMPTY)
    batch = collate([], [], [error])
    assert batch.inputs == {} and len(batch.labels) == 0 and batch.failed == [error]


def test_seeds_of_views_differ_with_each_part() -> None:
    seeds = {view_seed(seed, epoch, index) for seed in range(4) for epoch in range(5) for index in range(50)}
    assert len(seeds) == 1000
    assert view_seed(1, 2) == view_seed(1, 2) and view_seed(1, 2) != view_seed(2, 1)


@pytest.fixture(scope="module")
def files(tiny_clips: Path) -> list[ClipFile]:
    """Three clips, the second unreadable, the last without known timestamps."""
    red, green = sorted((tiny_clips / "red").iterdir())[0], sorted((tiny_clips / "green").iterdir())[0]
    bad = tiny_clips / "blue" / "v_blue_g01_c09.mp4"
    info = probe(str(red))
    return [ClipFile(str(red), 2, info.times, info.duration), ClipFile(str(bad), 0), ClipFile(str(green), 1)]


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_come_in_the_order_asked_for_and_failures_in_their_place(files: list[ClipFile], workers: int) -> None:
    loaded = list(stream_clips(files, PLAN, workers, [(2, None), (1, None), (0, 5), (0, None)]))
    assert [item.index for item in loaded] == [2, 1, 0, 0]
    assert [item.clip is None for item in loaded] == [False, True, False, False]
    assert loaded[1].error is not None and loaded[1].error.reason == Reason.NOT_A_VIDEO
    assert loaded[0].duration > 0 and loaded[2].duration == files[0].duration
    assert loaded[2].clip is not None and loaded[3].clip is not None
    assert not np.array_equal(loaded[2].clip.inputs["rgb"], loaded[3].clip.inputs["rgb"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_names_the_files_that_are_missing_from_a_batch(files: list[ClipFile], workers: int) -> None:
    loader = ClipLoader(files, PLAN, 2, workers)
    for requests in ([(0, None), (1, None), (2, None)], [(1, None), (1, 3)]):
        batches = list(loader.batches(requests))
        assert [error.path for batch in batches for error in batch.failed] == [
            files[1].path for index, _ in requests if index == 1
        ]
        assert [label for batch in batches for label in batch.labels.tolist()] == [
            files[index].label for index, _ in requests if index != 1
        ]


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_draws_nothing_from_the_generator_that_training_uses(files: list[ClipFile], workers: int) -> None:
    """A DataLoader draws its workers' seed from the global generator, once per pass or, where workers live on, once
    for all: dropout would differ with the number of workers, and after a resume."""
    loader = ClipLoader(files, PLAN, 2, workers)
    before = torch.get_rng_state()
    for _ in range(2):
        list(loader.batches([(0, 1)]))
        list(stream_clips(files, PLAN, workers, [(0, 1)]))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_end_at_once_with_their_loader(files: list[ClipFile]) -> None:
    """A loader in a reference circle is left to the garbage collector, which closes the workers' queues before it
    asks them to stop: each is then waited for 5 s and killed."""
    loader = ClipLoader(files, PLAN, 2, 2)
    list(loader.batches([(0, None), (2, None)]))
    workers = multiprocessing.active_children()
    assert len(workers) >= 2
    gc.disable()
    try:
        started = time.monotonic()
        del loader
        assert not any(worker.is_alive() for worker in workers)
        assert time.monotonic() - started < 4
        assert all(worker.exitcode == 0 for worker in workers)
    finally:
        gc.enable()
