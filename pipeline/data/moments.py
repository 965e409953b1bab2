"""From frames as they come to a model's moments one by one: what `load_clip` makes of the same frames at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.config import VideoConfig
from pipeline.data.clips import Plan, channels_first, difference_input, flow_input, flow_velocity, moments
from pipeline.data.transforms import transform_clip
from pipeline.errors import ConfigError
from pipeline.video.display import resize
from pipeline.video.sampling import TOLERANCE

HALF_MILLISECOND = 5e-4
"""As in `previous_frames`: timestamps are rounded to the container's time base."""


@dataclass(frozen=True)
class Moment:
    """One moment, ready for a model.

    Attributes:
        inputs: per stream, uint8 (3, S, S) or float32 (D,).
        time: seconds, as the frame was given.
        frame: uint8 (H, W, 3) RGB, as it was given.
    """

    inputs: dict[str, NDArray[np.generic]]
    time: float
    frame: NDArray[np.uint8]


@dataclass
class _Frame:
    """A frame that may still be needed: as it came, and in the sizes at which motion is computed."""

    time: float
    raw: NDArray[np.uint8] | None
    fitted: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    taken: bool = False


def streaming(plan: Plan, rate: float | None = None) -> Plan:
    """The plan of a stream: moments at a fixed rate.

    Args:
        plan: a checkpoint's.
        rate: moments per second; None: as the plan says.

    Raises:
        ConfigError: the plan spreads a number of moments over a clip, which a stream has no end for, and no rate is
            given.
    """
    if rate is None and plan.video.sampling != "rate":
        raise ConfigError(
            f"the model looks at {plan.video.frames} moments of a clip, however long it is; a stream needs a rate in "
            "moments per second"
        )
    return replace(plan, video=replace(plan.video, sampling="rate", fps=plan.video.fps if rate is None else rate))


def usual_sampling(clips: Sequence[NDArray[np.float64]], video: VideoConfig) -> tuple[float | None, int]:
    """How clips were sampled on the whole: the rate and the length that a model knows.

    Args:
        clips: float64 (N,) each, the timestamps of a clip's frames.
        video: how moments were chosen.

    Returns:
        Moments per second, the median over the clips (None where no clip has two moments), and moments per clip, the
        median again.
    """
    chosen = [moments(times, video) for times in clips]
    spacings = [(times[-1] - times[0]) / (len(times) - 1) for times in chosen if len(times) > 1]
    rate = float(1 / np.median(spacings)) if spacings else None
    return rate, int(np.median([len(times) for times in chosen])) if chosen else video.frames


class Moments:
    """Frames in, moments out; time and memory per frame do not grow.

    The moments of all frames so far are those that `load_clip` finds in a clip of these frames, with the same numbers.
    Which frame is on screen at a moment is known when the next frame is there, so a frame that comes before its moment
    is answered with the next one; a frame that comes at its moment is answered at once. Frames less than a millisecond
    apart may be chosen otherwise than in a clip.

    Args:
        plan: of moments at a fixed rate, see `streaming`.

    Example:
        >>> stream = Moments(streaming(predictor.plan, rate=8.0))
        >>> for frame, time in frames:
        ...     for moment in stream.push(frame, time):
        ...         probabilities, state = predictor.step(moment.inputs, state)
    """

    def __init__(self, plan: Plan) -> None:
        if plan.video.sampling != "rate":
            raise ValueError("a stream has moments at a fixed rate: see `streaming`")
        self.plan = plan
        names = plan.video.stream_names
        of_difference = plan.video.size if plan.difference.form == "image" else plan.difference.size
        motion = {"difference": (of_difference, plan.difference.interval), "flow": (plan.flow.size, plan.flow.interval)}
        self._motion = {name: motion[name] for name in names if name in motion}
        self._ahead = sorted({size for size, interval in self._motion.values() if interval > 0})
        self._longest = max((interval for _, interval in self._motion.values()), default=0.0)
        self.reset()

    def reset(self) -> None:
        """Begin anew with the next frame, as a new clip does."""
        self._history: deque[_Frame] = deque()
        self._before: _Frame | None = None
        self._start, self._next = 0.0, 0
        self._shape: tuple[int, int] | None = None

    def push(self, frame: NDArray[np.uint8], time: float) -> list[Moment]:
        """The next frame.

        Args:
            frame: uint8 (H, W, 3) RGB, kept and not copied. One of another size than the first is resized to it.
            time: seconds, later than that of the frame before.

        Returns:
            The moments that are known now: none, one or two.

        Raises:
            ValueError: not a later time.
        """
        found = []
        if self._history:
            last = self._history[-1]
            if not time > last.time:
                raise ValueError(f"frames must come in the order of time: {time} s after {last.time} s")
            if self._moment() + TOLERANCE < time and not last.taken:
                found.append(self._take(last))
            self._skip(time)
            last.raw = None
        else:
            self._start = time
        current = self._keep(frame, time)
        # the tolerance of `rate_times` for its last moment
        if self._moment() <= time + 1e-6 / self.plan.video.fps:
            found.append(self._take(current))
        self._forget(time)
        return found

    def _moment(self) -> float:
        """Seconds of the next moment."""
        return self._start + self._next / self.plan.video.fps

    def _skip(self, time: float) -> None:
        """Go to the first moment that a frame at this time can be on screen at."""
        self._next = max(self._next, int((time - TOLERANCE - self._start) * self.plan.video.fps) - 1)
        while self._moment() + TOLERANCE < time:
            self._next += 1

    def _keep(self, frame: NDArray[np.uint8], time: float) -> _Frame:
        if self._shape is None:
            self._shape = (frame.shape[0], frame.shape[1])
        current = _Frame(time, resize(frame, self._shape[1], self._shape[0]))
        for size in self._ahead:
            self._fit(current, size)
        self._history.append(current)
        return current

    def _forget(self, time: float) -> None:
        """Drop what no later moment looks back to."""
        horizon = time - self._longest + HALF_MILLISECOND + TOLERANCE
        while len(self._history) > 2 and self._history[1].time <= horizon:
            self._history.popleft()

    def _take(self, frame: _Frame) -> Moment:
        raw = frame.raw
        assert raw is not None
        frame.taken = True
        plan, inputs = self.plan, {}
        for name in plan.video.stream_names:
            if name == "rgb":
                inputs[name] = channels_first(transform_clip(raw[None], plan.video.size, plan.video.fit))[0]
                continue
            size, interval = self._motion[name]
            earlier = self._earlier(frame, interval)
            before, now = self._fit(earlier, size)[None], self._fit(frame, size)[None]
            if name == "difference":
                inputs[name] = difference_input(before, now, plan)[0]
            else:
                velocity = flow_velocity(before, now, np.array([frame.time - earlier.time]))
                inputs[name] = flow_input(velocity, plan)[0]
        self._before = frame
        return Moment(inputs, frame.time, raw)

    def _earlier(self, frame: _Frame, interval: float) -> _Frame:
        """The frame that a moment's motion starts from, as `previous_frames` chooses it."""
        if interval == 0:
            return self._before or frame
        wanted = frame.time - interval + HALF_MILLISECOND
        found = self._history[0]
        for candidate in self._history:
            if candidate is frame or candidate.time > wanted + TOLERANCE:
                break
            found = candidate
        return found

    def _fit(self, frame: _Frame, size: int) -> NDArray[np.uint8]:
        if size not in frame.fitted:
            assert frame.raw is not None
            frame.fitted[size] = transform_clip(frame.raw[None], size, self.plan.video.fit)[0]
        return frame.fitted[size]
