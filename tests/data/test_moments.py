"""A stream's moments are those of a clip of the same frames, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DifferenceConfig, FlowConfig, VideoConfig
from pipeline.data import clips
from pipeline.data.clips import ClipInputs, Plan, load_clip
from pipeline.data.moments import Moment, Moments, streaming
from pipeline.errors import ConfigError
from pipeline.video.clip import Clip
from pipeline.video.reader import probe, read_frames


def plan(streams: str = "rgb+difference+flow", fps: float = 8.0, interval: float = 0.08, form: str = "grid") -> Plan:
    video = VideoConfig(streams=streams, sampling="rate", fps=fps, size=16, frames=4)
    flow = FlowConfig(size=16, grid=2, interval=interval, form=form)  # type: ignore[arg-type]
    return Plan(video, flow, difference=DifferenceConfig(size=16, grid=2, interval=interval, form=form))  # type: ignore[arg-type]


def stream(frames: np.ndarray, times: np.ndarray, made: Plan) -> list[Moment]:
    moments = Moments(made)
    return [moment for frame, time in zip(frames, times, strict=True) for moment in moments.push(frame, float(time))]


def assert_equal(found: list[Moment], clip: ClipInputs, start: float) -> None:
    assert [moment.time - start for moment in found] == clip.times.tolist()
    for name, whole in clip.inputs.items():
        np.testing.assert_array_equal(np.stack([moment.inputs[name] for moment in found]), whole, err_msg=name)


@pytest.mark.parametrize(("fps", "interval"), [(3.0, 0.08), (29.97, 0.0), (100.0, 0.5), (12.0, 0.08)])
def test_a_stream_has_the_moments_of_the_clip(fps: float, interval: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even, uneven and rounded timestamps, rates below and above that of the frames."""
    rng = np.random.default_rng(int(fps * 100 + interval * 10))
    even = 5.0 + np.arange(30) / 29.97
    uneven = 0.1 + np.cumsum(rng.uniform(0.002, 0.2, 30))
    for times in (even, np.round(even, 3), uneven, uneven[:1], np.round(uneven, 3)):
        frames = rng.integers(0, 256, (len(times), 20, 24, 3), dtype=np.uint8)
        monkeypatch.setattr(clips, "read_frames", lambda path, wanted, at, f=frames: Clip(f[wanted], at, path))
        for form in ("grid", "image"):
            made = plan(fps=fps, interval=interval, form=form)
            assert_equal(stream(frames, times, made), load_clip("x", times, made), times[0])


def test_a_stream_of_real_files_has_their_moments(tiny_clips: Path) -> None:
    made = plan(fps=7.0)
    for path in sorted(tiny_clips.glob("red/*_c01.*"))[:3]:
        times = probe(str(path)).times
        frames = read_frames(str(path), np.arange(len(times)), times).frames
        assert_equal(stream(frames, times, made), load_clip(str(path), times, made), times[0])


def test_a_frame_at_its_moment_is_answered_at_once_and_an_earlier_one_with_the_next() -> None:
    made = plan("rgb", fps=10.0)
    moments, frame = Moments(made), np.zeros((16, 16, 3), np.uint8)
    assert [m.time for m in moments.push(frame, 1.0)] == [1.0]
    assert moments.push(frame, 1.09) == []
    assert [m.time for m in moments.push(frame, 1.15)] == [1.09]
    assert [m.time for m in moments.push(frame, 1.2)] == [1.2]


def test_after_a_reset_a_stream_begins_as_a_clip_does() -> None:
    rng = np.random.default_rng(1)
    frames, times, made = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), np.arange(12) / 10, plan()
    moments = Moments(made)
    for frame, time in zip(frames, times, strict=True):
        moments.push(frame, time)
    moments.reset()
    again = [m for frame, time in zip(frames, times, strict=True) for m in moments.push(frame, time)]
    for one, other in zip(again, stream(frames, times, made), strict=True):
        assert one.time == other.time
        assert all((one.inputs[name] == other.inputs[name]).all() for name in one.inputs)


def test_what_is_kept_of_a_stream_does_not_grow() -> None:
    """Objects are counted in tests/stages/watch; here the frames, half a second of 25 per second and two more."""
    moments, frame = Moments(plan(interval=0.5)), np.zeros((16, 16, 3), np.uint8)
    kept = []
    for number in range(80):
        moments.push(frame, number / 25)
        kept.append(len(moments._history))
    assert max(kept) == kept[-1] <= 14
    assert sum(one.raw is not None for one in moments._history) == 1


def test_a_jump_of_hours_costs_no_time_and_a_step_back_is_refused() -> None:
    moments, frame = Moments(plan("rgb", fps=1000.0)), np.zeros((16, 16, 3), np.uint8)
    moments.push(frame, 0.0)
    assert [m.time for m in moments.push(frame, 3e6)] == [3e6]
    with pytest.raises(ValueError, match="order of time"):
        moments.push(frame, 3e6)


def test_a_frame_of_another_size_is_resized_to_the_first() -> None:
    moments = Moments(plan())
    moments.push(np.full((24, 30, 3), 9, np.uint8), 0.0)
    (found,) = moments.push(np.full((48, 60, 3), 9, np.uint8), 0.125)
    assert found.frame.shape == (24, 30, 3) and not found.inputs["difference"].any()


def test_a_model_of_whole_clips_needs_a_rate() -> None:
    spread = replace(plan(), video=VideoConfig(frames=12))
    with pytest.raises(ConfigError, match=r"12 moments of a clip.*needs a rate"):
        streaming(spread)
    assert streaming(spread, 6.0).video.fps == 6.0
    assert streaming(plan(fps=3.0)).video.fps == 3.0
    with pytest.raises(ValueError, match="fixed rate"):
        Moments(spread)
