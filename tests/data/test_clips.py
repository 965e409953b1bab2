from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AugmentationConfig, DifferenceConfig, FlowConfig, VideoConfig
from pipeline.data.clips import ClipInputs, Plan, choose_frames, load_clip, previous_frames
from pipeline.errors import Reason, VideoError
from pipeline.video.capture import Capture
from pipeline.video.difference import STILL
from pipeline.video.reader import probe
from pipeline.video.writer import write_video

steps = st.lists(st.floats(0.002, 2.0), min_size=0, max_size=60)
seeds = st.none() | st.integers(0, 2**31)


def moments(gaps: list[float], start: float = 0.0) -> np.ndarray:
    return start + np.concatenate([[0.0], np.cumsum(gaps)])


def generator(seed: int | None) -> np.random.Generator | None:
    return None if seed is None else np.random.default_rng(seed)


@given(steps, st.integers(1, 40), seeds, st.floats(0, 100))
def test_uniform_sampling_gives_distinct_frames_in_order(
    gaps: list[float], frames: int, seed: int | None, start: float
) -> None:
    times = moments(gaps, start)
    chosen = choose_frames(times, VideoConfig(frames=frames), generator(seed))
    assert chosen.min() >= 0 and chosen.max() < len(times)
    assert (np.diff(chosen) > 0).all()
    assert 1 <= len(chosen) <= frames


@given(steps, st.integers(0, 20), seeds)
def test_a_clip_with_no_more_frames_than_moments_gives_each_once(
    gaps: list[float], spare: int, seed: int | None
) -> None:
    times = moments(gaps)
    chosen = choose_frames(times, VideoConfig(frames=len(times) + spare), generator(seed))
    assert chosen.tolist() == list(range(len(times)))


@given(steps, st.integers(1, 40), st.floats(0.5, 60), seeds)
def test_rate_sampling_gives_distinct_frames_in_order_and_keeps_to_the_window(
    gaps: list[float], frames: int, fps: float, seed: int | None
) -> None:
    times = moments(gaps)
    chosen = choose_frames(times, VideoConfig(sampling="rate", fps=fps, frames=frames), generator(seed))
    assert chosen.min() >= 0 and chosen.max() < len(times)
    assert (np.diff(chosen) > 0).all()
    if seed is not None:
        assert len(chosen) <= frames


def test_rate_sampling_reads_the_whole_clip_in_evaluation_and_a_window_in_training() -> None:
    times = np.arange(100) / 10
    video = VideoConfig(sampling="rate", fps=2.0, frames=6)
    assert choose_frames(times, video).tolist() == list(range(0, 100, 5))
    windows = {tuple(choose_frames(times, video, np.random.default_rng(seed))) for seed in range(8)}
    assert {len(window) for window in windows} == {6} and len(windows) > 4


def test_uniform_sampling_is_centred_in_evaluation_and_jittered_in_training() -> None:
    times = np.arange(81) / 10
    video = VideoConfig(frames=4)
    assert choose_frames(times, video).tolist() == [10, 30, 50, 70]
    drawn = [choose_frames(times, video, np.random.default_rng(seed)) for seed in range(20)]
    assert len({tuple(one) for one in drawn}) > 15
    assert all((np.array([0, 20, 40, 60]) <= one).all() and (one <= [20, 40, 60, 80]).all() for one in drawn)


@given(steps, st.integers(1, 40), st.floats(0, 1), seeds)
def test_flow_starts_from_an_earlier_frame(gaps: list[float], frames: int, interval: float, seed: int | None) -> None:
    times = moments(gaps)
    chosen = choose_frames(times, VideoConfig(frames=frames), generator(seed))
    earlier = previous_frames(times, chosen, interval)
    assert earlier.shape == chosen.shape
    assert earlier.min() >= 0
    moving = chosen > (chosen[0] if interval == 0 else 0)
    assert (earlier[moving] < chosen[moving]).all()
    assert (earlier[~moving] == chosen[~moving]).all()


def test_flow_reaches_back_by_its_interval() -> None:
    times = np.arange(50) / 25
    chosen = np.array([0, 1, 10, 49])
    assert previous_frames(times, chosen, 0.08).tolist() == [0, 0, 8, 47]
    assert previous_frames(times, chosen, 0.001).tolist() == [0, 0, 9, 48]
    assert previous_frames(times, chosen, 0).tolist() == [0, 0, 1, 10]


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> str:
    """20 frames at 10 per second, without loss: a texture that moves right by 2 of 64 pixels per frame."""
    path = str(tmp_path_factory.mktemp("moving") / "clip.mkv")
    coarse = np.random.default_rng(0).integers(0, 256, (12, 28, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (112, 48), interpolation=cv2.INTER_CUBIC)
    frames = np.stack([texture[:, 40 - 2 * index : 104 - 2 * index] for index in range(20)])
    write_video(path, frames, 10.0)
    return path


def plan(streams: str = "rgb", **flow: object) -> Plan:
    return Plan(VideoConfig(streams=streams, frames=5, size=24), FlowConfig(**{"size": 48, "grid": 3, **flow}))  # type: ignore[arg-type]


def test_inputs_have_the_promised_shapes(moving: str) -> None:
    times = probe(moving).times
    both = load_clip(moving, times, plan("rgb+flow"))
    assert both.length == 5 and both.times.dtype == np.float64
    assert both.inputs["rgb"].shape == (5, 3, 24, 24) and both.inputs["rgb"].dtype == np.uint8
    assert both.inputs["flow"].shape == (5, 18) and both.inputs["flow"].dtype == np.float32
    image = load_clip(moving, times, plan("flow", form="image"))
    assert image.inputs["flow"].shape == (5, 3, 24, 24) and image.inputs["flow"].dtype == np.uint8


@pytest.mark.parametrize("form", ["grid", "image"])
def test_a_stream_is_the_same_alone_and_beside_the_others(moving: str, form: Literal["grid", "image"]) -> None:
    times = probe(moving).times
    for seed in (None, 3):
        change = DifferenceConfig(form, grid=3, size=48, interval=0.3)  # reads frames that the flow does not

        def load(streams: str, seed: int | None = seed, change: DifferenceConfig = change) -> ClipInputs:
            return load_clip(moving, times, replace(plan(streams), difference=change), seed)

        together = load("rgb+difference+flow")
        assert list(together.inputs) == ["rgb", "difference", "flow"]
        for name in together.inputs:
            assert np.array_equal(load(name).inputs[name], together.inputs[name])


def test_a_difference_is_an_image_or_a_grid_and_starts_at_nothing(moving: str) -> None:
    times = probe(moving).times
    whole = VideoConfig(streams="difference", frames=20, size=24)
    grid = load_clip(moving, times, Plan(whole, FlowConfig(), difference=DifferenceConfig(grid=3, size=48)))
    assert grid.inputs["difference"].shape == (20, 18) and grid.inputs["difference"].dtype == np.float32
    assert (grid.inputs["difference"][0] == 0).all() and (grid.inputs["difference"][5] > 0).all()
    image = load_clip(moving, times, Plan(whole, FlowConfig(), difference=DifferenceConfig("image")))
    assert image.inputs["difference"].shape == (20, 3, 24, 24) and image.inputs["difference"].dtype == np.uint8
    assert (image.inputs["difference"][0] == STILL).all() and (image.inputs["difference"][5] != STILL).any()


@pytest.mark.parametrize("form", ["grid", "image"])
def test_a_difference_does_not_depend_on_the_frame_rate(tmp_path: Path, form: Literal["grid", "image"]) -> None:
    """The same scene with 10 and with 20 frames per second, looked at in the same moments."""
    scene = np.random.default_rng(0).integers(0, 256, (16, 32, 48, 3), dtype=np.uint8)
    rates = {10.0: np.ascontiguousarray(scene), 20.0: np.repeat(scene, 2, axis=0)}
    found = []
    for rate, frames in rates.items():
        path = str(tmp_path / f"{rate:.0f}.mkv")
        write_video(path, frames, rate)
        video = VideoConfig(streams="difference", sampling="rate", fps=5.0, size=24)
        change = DifferenceConfig(form, grid=4, size=32, interval=0.2)
        found.append(load_clip(path, probe(path).times, Plan(video, FlowConfig(), difference=change)))
    assert found[0].times == pytest.approx(found[1].times[: found[0].length], abs=1e-3)
    assert np.array_equal(*(clip.inputs["difference"][: found[0].length] for clip in found))


def test_a_change_of_colour_is_no_difference(tmp_path: Path) -> None:
    """A still clip stays still in every training view, however it is augmented."""
    path = str(tmp_path / "still.mkv")
    texture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    write_video(path, np.repeat(texture[None], 8, axis=0), 10.0)
    augmentation = AugmentationConfig(crop=0.5, flip=0.5, rotate=20.0, brightness=0.5, saturation=0.5)
    still = Plan(VideoConfig(streams="difference", frames=5, size=24), FlowConfig(), augmentation)
    for seed in range(5):
        assert (load_clip(path, probe(path).times, still, seed).inputs["difference"] == 0).all()


def test_flow_is_a_velocity_whatever_the_interval(moving: str) -> None:
    """2 of 64 pixels per 0.1 s is 0.3125 widths per second."""
    times = probe(moving).times
    for interval in (0.1, 0.2):
        flow = load_clip(moving, times, plan("flow", interval=interval, grid=1, size=64)).inputs["flow"][1:, 0]
        assert flow == pytest.approx(0.3125, rel=0.1)


def test_the_first_frame_has_no_flow(moving: str) -> None:
    times = probe(moving).times
    clip = load_clip(moving, times, Plan(VideoConfig(streams="flow", frames=20, size=24), FlowConfig(size=48, grid=2)))
    assert (clip.inputs["flow"][0] == 0).all() and (clip.inputs["flow"][5] != 0).any()


def test_evaluation_is_unchanged_and_a_seed_decides_a_training_view(moving: str) -> None:
    times = probe(moving).times

    def view(seed: int | None) -> np.ndarray:
        return load_clip(moving, times, plan(), seed).inputs["rgb"]

    assert np.array_equal(view(None), view(None))
    assert np.array_equal(view(5), view(5))
    assert not np.array_equal(view(5), view(6))
    calm = Plan(plan().video, FlowConfig(), AugmentationConfig(crop=0.3, brightness=2.0))
    assert np.array_equal(load_clip(moving, times, calm).inputs["rgb"], view(None))


def test_times_count_from_the_first_frame(moving: str) -> None:
    times = probe(moving).times
    clip = load_clip(moving, times, plan())
    assert clip.times == pytest.approx(times[choose_frames(times, plan().video)] - times[0])


def test_a_file_that_changed_since_it_was_probed_is_an_error_not_a_shorter_clip(moving: str, tmp_path: Path) -> None:
    path = str(tmp_path / "short.mkv")
    write_video(path, np.zeros((3, 48, 64, 3), dtype=np.uint8), 10.0)
    with pytest.raises(VideoError) as error:
        load_clip(path, probe(moving).times, plan())
    assert isinstance(error.value.reason, Reason)


def test_another_file_under_the_same_name_is_known_by_its_times(moving: str) -> None:
    """As many frames, at other moments: these are not the frames that were chosen."""
    times = probe(moving).times
    with pytest.raises(VideoError, match="the file changed") as caught:
        load_clip(moving, times * 1.5, Plan(VideoConfig(frames=4, size=32), FlowConfig()))
    assert caught.value.reason is Reason.NOT_READABLE


def test_distant_frames_are_sought_and_are_those_of_reading_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1600, 32, 32, 3), dtype=np.uint8)
    path = str(tmp_path / "long.mp4")
    write_video(path, frames, 25.0, "mp4v")
    times, plan = probe(path).times, Plan(VideoConfig(frames=4, size=32), FlowConfig())
    sought: list[float] = []
    original = Capture.seek

    def seek(self: Capture, time: float) -> bool:
        sought.append(time)
        return original(self, time)

    monkeypatch.setattr(Capture, "seek", seek)
    found = load_clip(path, times, plan)
    assert len(sought) == 3  # the first of the four moments is near the beginning
    monkeypatch.setattr(Capture, "seek", lambda *_: False)
    through = load_clip(path, times, plan)
    np.testing.assert_array_equal(found.inputs["rgb"], through.inputs["rgb"])
    np.testing.assert_array_equal(found.times, through.times)
