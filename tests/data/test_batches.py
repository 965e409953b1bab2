from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import FlowConfig, LimitsConfig, VideoConfig
from pipeline.data import batches as batching
from pipeline.data.batches import ClipLoader, collate
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.stream import decoding_pool, stream_clips, view_seed
from pipeline.errors import Reason, VideoError
from pipeline.video.reader import probe
from tests.hostile import hostile_environment

PLAN = Plan(VideoConfig(frames=4, size=16), FlowConfig())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_padding_is_zeros_after_the_real_moments(lengths: list[int], width: int) -> None:
    clips = [
        {"rgb": np.full((t, 3, 2, 2), 200, dtype=np.uint8), "flow": np.full((t, width), 0.5, dtype=np.float32)}
        for t in lengths
    ]
    batch = collate(clips, list(range(len(lengths))))
    assert batch.lengths.tolist() == lengths and batch.lengths.dtype == torch.int64
    assert batch.targets.tolist() == list(range(len(lengths))) and batch.targets.dtype == torch.int64
    assert batch.inputs["rgb"].dtype == torch.uint8 and batch.inputs["flow"].dtype == torch.float32
    assert batch.inputs["rgb"].shape == (len(lengths), max(lengths), 3, 2, 2)
    for row, length in enumerate(lengths):
        assert (batch.inputs["rgb"][row, :length] == 200).all() and (batch.inputs["rgb"][row, length:] == 0).all()
        assert (batch.inputs["flow"][row, :length] == 0.5).all() and (batch.inputs["flow"][row, length:] == 0).all()


def test_a_batch_whose_files_all_failed_is_empty_and_says_so() -> None:
    error = VideoError("a.mp4", Reason.EMPTY)
    batch = collate([], [], failed=[error])
    assert batch.inputs == {} and len(batch.targets) == 0 and batch.failed == [error]


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
    loader = ClipLoader(files, PLAN, 2, decoding_pool(PLAN, workers))
    for requests in ([(0, None), (1, None), (2, None)], [(1, None), (1, 3)]):
        batches = list(loader.batches(requests))
        assert [error.path for batch in batches for error in batch.failed] == [
            files[1].path for index, _ in requests if index == 1
        ]
        assert [label for batch in batches for label in batch.targets.tolist()] == [
            files[index].target for index, _ in requests if index != 1
        ]


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_draws_nothing_from_the_generator_that_training_uses(files: list[ClipFile], workers: int) -> None:
    """torch's DataLoader draws its workers' seed from the global generator: dropout would differ with the number of
    workers, and after a resume."""
    loader = ClipLoader(files, PLAN, 2, decoding_pool(PLAN, workers))
    before = torch.get_rng_state()
    for _ in range(2):
        list(loader.batches([(0, 1)]))
        list(stream_clips(files, PLAN, workers, [(0, 1)]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_that_is_given_up_does_not_disturb_the_next(files: list[ClipFile], workers: int) -> None:
    loader = ClipLoader(files, PLAN, 1, decoding_pool(PLAN, workers))
    for batch in loader.batches([(0, None), (2, None)] * 4):
        assert batch.targets.tolist() == [2]
        break
    assert [batch.targets.tolist() for batch in loader.batches([(2, None), (0, None)])] == [[1], [2]]


def test_loaders_that_take_turns_share_their_workers_which_end_with_them(files: list[ClipFile]) -> None:
    pool = decoding_pool(PLAN, 2)
    train, val = ClipLoader(files, PLAN, 2, pool), ClipLoader(files[:1], PLAN, 2, pool)
    requests: list[tuple[int, int | None]] = [(0, None), (2, None)]
    assert len(list(train.batches(requests))) == 1
    pids = train.pool.pids
    assert len(list(val.batches([(0, None)]))) == 1
    assert len(list(train.batches(requests))) == 1
    assert len(pids) == 2 and val.pool.pids == pids
    del pool, train, val
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("sizes", [None, [2, 0, 3, 1]])
def test_batches_are_the_same_where_decoding_takes_turns(files: list[ClipFile], sizes: list[int] | None) -> None:
    requests: list[tuple[int, int | None]] = [(0, 1), (1, 2), (2, 3), (0, None), (2, 5), (0, 7)]
    with decoding_pool(PLAN, 2) as pool:
        ahead, turns = (
            list(ClipLoader(files, PLAN, 2, pool, turns=turns).batches(requests, sizes)) for turns in (False, True)
        )
    assert len(ahead) == len(turns) == (3 if sizes is None else 4)
    for one, other in zip(ahead, turns, strict=True):
        assert one.inputs.keys() == other.inputs.keys()
        assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
        assert torch.equal(one.targets, other.targets) and torch.equal(one.times, other.times)
        assert [str(error) for error in one.failed] == [str(error) for error in other.failed]


def test_nothing_is_decoded_while_the_model_has_its_turn(
    files: list[ClipFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch alone, since nobody knows how large it is; then as many as fit."""
    monkeypatch.setattr(batching, "STRETCH_CLIPS", 6)
    asked: list[int] = []
    with decoding_pool(PLAN, 2) as pool:
        run = pool.run
        monkeypatch.setattr(
            pool, "run", lambda task, items, ahead: (asked.append(len(items)), run(task, items, ahead))[1]
        )
        for batch in ClipLoader(files, PLAN, 2, pool, turns=True).batches([(0, None), (2, None)] * 5):
            assert len(batch.targets) == 2
            assert not any(worker.busy for worker in pool._crew.workers)
    assert asked == [2, 6, 2]


def test_a_turn_ends_where_the_memory_for_it_does(files: list[ClipFile], monkeypatch: pytest.MonkeyPatch) -> None:
    loader = ClipLoader(files, PLAN, 1, decoding_pool(PLAN, 0), turns=True)
    (batch,) = loader.batches([(0, None)])
    for room, fits in ((2.5, 2), (0.5, 1), (1e6, batching.STRETCH_CLIPS)):
        monkeypatch.setattr(batching, "STRETCH_BYTES", int(room * batch.inputs["rgb"].nbytes))
        assert loader._stretch() == fits


@pytest.fixture(scope="module")
def cut_off(tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two thirds of a clip whose index comes first, as of a download that broke."""
    whole = sorted(path for path in (tiny_clips / "green").iterdir() if path.suffix == ".webm")[0].read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.webm"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path


def test_a_file_that_nobody_looked_at_before_must_keep_to_the_policy(cut_off: Path, files: list[ClipFile]) -> None:
    damage = probe(str(cut_off)).damage
    assert damage
    (rejected,) = stream_clips([ClipFile(str(cut_off))], PLAN, 0)
    assert rejected.clip is None and rejected.error is not None
    assert (rejected.error.path, rejected.error.reason) == (str(cut_off), Reason.TRUNCATED)
    assert rejected.error.detail == damage
    accepting = replace(PLAN, video=replace(PLAN.video, partial="accept"))
    accepted, whole = stream_clips([ClipFile(str(cut_off)), files[2]], accepting, 0)
    assert accepted.clip is not None and accepted.note == damage
    assert whole.clip is not None and whole.note == ""


@pytest.mark.parametrize(
    ("limits", "reason"),
    [(LimitsConfig(min_frames=50), Reason.TOO_SHORT), (LimitsConfig(megapixels=0.001), Reason.TOO_LARGE)],
)
def test_a_file_that_nobody_looked_at_before_must_keep_to_the_limits(
    files: list[ClipFile], limits: LimitsConfig, reason: Reason
) -> None:
    (loaded,) = stream_clips([files[2]], replace(PLAN, limits=limits), 0)
    assert loaded.clip is None and loaded.error is not None and loaded.error.reason == reason


def test_a_file_that_cost_a_worker_is_named_each_time_and_read_once(
    files: list[ClipFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hostile_environment(tmp_path / "hostile").items():
        monkeypatch.setenv(name, value)
    crashing = tmp_path / "crash.webm"
    crashing.write_bytes(Path(files[0].path).read_bytes())
    loader = ClipLoader([files[0], replace(files[0], path=str(crashing))], PLAN, 2, decoding_pool(PLAN, 1))
    before = None
    for _ in range(3):
        (batch,) = loader.batches([(0, None), (1, None)])
        assert batch.targets.tolist() == [2]
        assert [str(error) for error in batch.failed] == [f"{crashing}: decoder crashed (SIGSEGV)"]
        list(loader.batches([(0, None)]))
        assert before in (None, loader.pool.pids)
        before = loader.pool.pids


def test_what_a_worker_runs_does_not_need_torch() -> None:
    """The finder of `data/worker.py` in a process of its own: half a gigabyte that nobody uses, per worker."""
    code = """if True:
        import sys
        from pipeline.data.worker import _WithoutTorch
        sys.meta_path.insert(0, _WithoutTorch())
        import numpy, pipeline.data.loading
        from pipeline.config import AugmentationConfig
        from pipeline.data.transforms import transform_clip
        clip = numpy.zeros((2, 20, 30, 3), dtype="uint8")
        print(transform_clip(clip, 16, "crop", AugmentationConfig(flip=0.5, rotate=5), 1).shape, "torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 16, 16, 3) False"


def test_targets_over_time_are_padded_with_what_means_none() -> None:
    clips = [{"flow": np.zeros((t, 2), dtype=np.float32)} for t in (1, 3)]
    times = [np.array([0.0]), np.array([0.0, 0.5, 1.0])]
    batch = collate(clips, [np.array([2]), np.array([0, -1, 1])], times)
    assert batch.targets.dtype == torch.int64 and batch.targets.tolist() == [[2, -1, -1], [0, -1, 1]]
    assert batch.times.dtype == torch.float64 and batch.times.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.5, 1.0]]
    curves = collate(clips, [np.array([2.5], np.float32), np.array([np.nan, 1, 2], np.float32)], times).targets
    assert curves.dtype == torch.float32
    assert torch.isnan(curves).tolist() == [[False, True, True], [True, False, False]]
    assert curves[0, 0] == 2.5 and curves[1, 1:].tolist() == [1, 2]
    numbers = collate(clips, [1.5, 2.0], times).targets
    assert numbers.dtype == torch.float32 and numbers.tolist() == [1.5, 2.0]
    assert collate(clips, [-1, -1]).times.tolist() == [[0.0] * 3] * 2
