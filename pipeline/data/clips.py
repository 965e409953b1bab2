"""From a file to what a model takes in: choose moments, read their frames, fit them, compute the streams.

This one function prepares a clip for training, evaluation, classification and the feature store alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.config import AugmentationConfig, Config, DifferenceConfig, FlowConfig, LimitsConfig, VideoConfig
from pipeline.data.transforms import transform_clip
from pipeline.data.turned import turn_of
from pipeline.video.cells import cell_means
from pipeline.video.clip import Clip
from pipeline.video.difference import difference_grid, difference_image
from pipeline.video.flow import flow_fields, flow_image
from pipeline.video.reader import read_frames
from pipeline.video.sampling import frames_at, rate_times, uniform_times

IMAGE_SECONDS = 0.1
"""A flow image shows the way covered in this time: its range is filled by one frame width per second."""


@dataclass(frozen=True)
class Plan:
    """How files become inputs: everything that decides it, and nothing else.

    `augmentation` is used for training clips alone; an evaluation never sees it. `limits` decide whether a file is
    read, never what it gives.
    """

    video: VideoConfig
    flow: FlowConfig
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    difference: DifferenceConfig = field(default_factory=DifferenceConfig)

    @staticmethod
    def of(config: Config) -> Plan:
        """The plan a configuration describes."""
        return Plan(config.video, config.flow, config.augmentation, config.limits, config.difference)


@dataclass(frozen=True)
class ClipInputs:
    """One clip, ready for a model.

    Attributes:
        inputs: per stream, uint8 (T, 3, S, S) images or float32 (T, D) grid of cells.
        times: float64 (T,), the moments in seconds after the clip's first frame.
    """

    inputs: dict[str, NDArray[np.generic]]
    times: NDArray[np.float64]

    @property
    def length(self) -> int:
        """T, the number of moments: distinct frames really decoded."""
        return len(self.times)

    def reordered(self, order: NDArray[np.int64]) -> ClipInputs:
        """Its moments, with all that they hold, in another order (T,)."""
        return ClipInputs({name: x[order] for name, x in self.inputs.items()}, self.times[order])


def load_clip(
    path: str,
    times: NDArray[np.float64],
    plan: Plan,
    seed: int | None = None,
    first: int = 0,
    spent: dict[str, float] | None = None,
    read: Clip | None = None,
) -> ClipInputs:
    """Read one clip.

    Args:
        path: a video file, an image, or a folder of images.
        times: float64 (N,), the timestamp of every frame of the clip, as `video.reader.probe` found them.
        plan: what to read and how.
        seed: None for evaluation (centred, unchanged); a number for one random training view.
        first: number within the file of the frame that `times` begins with; above 0 for a segment.
        spent: where to note the seconds of each step: decode, transform, flow.
        read: the frames that `wanted_frames` names, where they were read before.

    Returns:
        The inputs, T at most `plan.video.frames` when sampling uniformly.

    Raises:
        VideoError: the file does not hold these frames any more.
    """
    rng = None if seed is None else np.random.default_rng(seed)
    turn = turn_of(seed, plan.augmentation)
    shown = backwards(times) if turn.backwards else times
    chosen = choose_frames(shown, plan.video, rng)  # the first to draw: `moments` does the same
    names = plan.video.stream_names
    earlier = _earlier(shown, chosen, plan)
    wanted = np.unique(np.concatenate([chosen, *earlier.values()]))
    places = len(times) - 1 - wanted[::-1] if turn.backwards else wanted
    with _noted(spent, "decode"):
        frames = (read or read_frames(path, places + first, times[places])).frames
    if turn.backwards:
        frames = np.ascontiguousarray(frames[::-1])
    now = np.searchsorted(wanted, chosen)
    before = {name: np.searchsorted(wanted, indices) for name, indices in earlier.items()}

    augmentation = None if seed is None else plan.augmentation
    if augmentation is not None and augmentation.flip_labels:  # drawn already: the label depends on it
        augmentation = replace(augmentation, flip=float(turn.mirrored))
    draw = 0 if rng is None else int(rng.integers(2**31))
    inputs: dict[str, NDArray[np.generic]] = {}
    if "rgb" in names:
        with _noted(spent, "transform"):
            alone = len(now) == len(frames)  # no other stream wants frames: these are all, and need not be copied
            rgb = transform_clip(frames if alone else frames[now], plan.video.size, plan.video.fit, augmentation, draw)
            inputs["rgb"] = channels_first(rgb)
    still = _geometry_only(augmentation)
    if "difference" in names:
        size = plan.video.size if plan.difference.form == "image" else plan.difference.size
        with _noted(spent, "difference"):
            fitted = transform_clip(frames, size, plan.video.fit, still, draw)
            inputs["difference"] = difference_input(fitted[before["difference"]], fitted[now], plan)
    if "flow" in names:
        with _noted(spent, "flow"):
            small = transform_clip(frames, plan.flow.size, plan.video.fit, still, draw)
            velocity = flow_velocity(small[before["flow"]], small[now], shown[chosen] - shown[earlier["flow"]])
            inputs["flow"] = flow_input(velocity, plan)
    return ClipInputs(inputs, shown[chosen] - shown[0])


def wanted_frames(times: NDArray[np.float64], plan: Plan) -> NDArray[np.int64]:
    """Positions of all frames that `load_clip` needs for the plain view of a clip with these times (N,)."""
    chosen = choose_frames(times, plan.video)
    return np.unique(np.concatenate([chosen, *_earlier(times, chosen, plan).values()]))


def _earlier(times: NDArray[np.float64], chosen: NDArray[np.int64], plan: Plan) -> dict[str, NDArray[np.int64]]:
    """The frames that the streams of motion start from, for each of them."""
    intervals = {"difference": plan.difference.interval, "flow": plan.flow.interval}
    names = [name for name in plan.video.stream_names if name in intervals]
    return {name: previous_frames(times, chosen, intervals[name]) for name in names}


def moments(
    times: NDArray[np.float64],
    video: VideoConfig,
    seed: int | None = None,
    augmentation: AugmentationConfig | None = None,
) -> NDArray[np.float64]:
    """The moments that `load_clip` looks at, without reading them.

    Args:
        times: float64 (N,), the timestamp of every frame of the clip.
        video: how they are chosen.
        seed: as of `load_clip`.
        augmentation: whether a random view may be played backwards; None: it may not.

    Returns:
        float64 (T,) seconds after the first frame that is shown.
    """
    rng = None if seed is None else np.random.default_rng(seed)
    shown = backwards(times) if augmentation and turn_of(seed, augmentation).backwards else times
    return shown[choose_frames(shown, video, rng)] - shown[0]


def backwards(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Timestamps (N,) of the same frames from the last to the first, over the same span."""
    return times[0] + times[-1] - times[::-1]


def choose_frames(
    times: NDArray[np.float64], video: VideoConfig, rng: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Indices (T,) of the frames on screen at the sampled moments, increasing and distinct.

    A clip with fewer frames than moments gives each of its frames once: a shorter clip, never a repeated frame.
    """
    if video.sampling == "uniform" and len(times) <= video.frames:
        return np.arange(len(times))
    start, end = float(times[0]), float(times[-1])
    if video.sampling == "uniform":
        moments = uniform_times(start, end, video.frames, rng)
    else:
        moments = rate_times(start, end, video.fps, None if rng is None else video.frames, rng)
    return np.unique(frames_at(times, moments))


def previous_frames(times: NDArray[np.float64], chosen: NDArray[np.int64], interval: float) -> NDArray[np.int64]:
    """Indices (T,) of the frames that each moment's flow or difference starts from.

    `interval` seconds earlier, and at least one frame; 0: the moment before. A clip's very first frame has no
    earlier one and is its own, which makes its flow and its difference zero.
    """
    if interval == 0:
        return np.concatenate([chosen[:1], chosen[:-1]])
    # half a millisecond of tolerance: timestamps are rounded to the container's time base
    earlier = frames_at(times, times[chosen] - interval + 5e-4)
    return np.maximum(np.minimum(earlier, chosen - 1), 0)


@contextmanager
def _noted(spent: dict[str, float] | None, step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if spent is not None:
        spent[step] = spent.get(step, 0.0) + time.perf_counter() - started


def _geometry_only(augmentation: AugmentationConfig | None) -> AugmentationConfig | None:
    """Streams of motion share their clip's crop, mirror and rotation, but a change of colour would only add noise."""
    if augmentation is None:
        return None
    return replace(augmentation, brightness=0.0, saturation=0.0)


def difference_input(before: NDArray[np.uint8], now: NDArray[np.uint8], plan: Plan) -> NDArray[np.generic]:
    """Fitted frames (T, S, S, 3) and their earlier ones: float32 (T, D), or uint8 (T, 3, S, S) in the form image."""
    if plan.difference.form == "grid":
        return difference_grid(before, now, plan.difference.grid)
    return channels_first(difference_image(before, now))


def flow_velocity(
    before: NDArray[np.uint8], now: NDArray[np.uint8], seconds: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Flow (T, H, W, 2) in frame widths and heights per second, so that the frame rate does not matter."""
    moving = seconds > 0
    fields = np.zeros((*now.shape[:3], 2), dtype=np.float32)
    if moving.any():
        rate = seconds[moving, None, None, None].astype(np.float32)
        fields[moving] = flow_fields(before[moving], now[moving]) / rate
    return fields


def flow_input(velocity: NDArray[np.float32], plan: Plan) -> NDArray[np.generic]:
    """What `flow_velocity` gives: float32 (T, D), or uint8 (T, 3, S, S) in the form image."""
    if plan.flow.form == "grid":
        return cell_means(velocity, plan.flow.grid)
    return channels_first(transform_clip(flow_image(velocity * IMAGE_SECONDS), plan.video.size, "stretch"))


def channels_first(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(T, H, W, 3) to (T, 3, H, W)."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
