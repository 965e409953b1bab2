"""From moments that come one by one to probabilities over time: by a state that is carried on, or by windows.

Each moment goes through the encoder once, in calls of the same size as those of `classify`; its features are kept as
long as a window needs them. Memory does not grow with the length of a recording.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.moments import Moment
from pipeline.stages.engine import encode_moments, image_streams
from pipeline.stages.predict import Predictor
from pipeline.stages.watch.engine import steps_of
from pipeline.stages.watch.stepper import Reset, Stepper


@dataclass(frozen=True)
class Encoded:
    """One moment: seconds, and per stream features float32 (D,)."""

    time: float
    features: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Answer:
    """Seconds, and probabilities float64 (K) of that time."""

    time: float
    probabilities: NDArray[np.float64]


class Encoding:
    """Gathers moments until an encoder call is full."""

    def __init__(self, predictor: Predictor) -> None:
        self._engine = predictor.engine
        self._waiting: list[tuple[float, Mapping[str, NDArray[np.generic]]]] = []

    def push(self, moment: Moment) -> list[Encoded]:
        """One more moment; none, or all that waited. The frame itself is not kept."""
        self._waiting.append((moment.time, moment.inputs))
        return self.flush() if len(self._waiting) >= self._engine.images else []

    def flush(self) -> list[Encoded]:
        """Those that wait."""
        if not self._waiting:
            return []
        times = [time for time, _ in self._waiting]
        inputs = {name: np.stack([each[name] for _, each in self._waiting]) for name in self._waiting[0][1]}
        self._waiting = []
        features = encode_moments(self._engine, inputs, image_streams(inputs))
        return [Encoded(time, {name: x[row] for name, x in features.items()}) for row, time in enumerate(times)]


class Answering(Protocol):
    """Features in the order of time in, answers in the order of time out."""

    def push(self, moment: Encoded) -> list[Answer]:
        """One more moment, and the answers that are known now."""

    def flush(self) -> list[Answer]:
        """The recording is over: the rest."""

    def event_ended(self) -> None:
        """Told when an event has ended, for states that begin anew then."""


class StateAnswers:
    """An answer at each moment, from a state that is carried through as `watch` does; see `Reset`."""

    def __init__(self, predictor: Predictor, reset: Reset) -> None:
        self._stepper, self._reset = Stepper(steps_of(predictor), 1, reset), reset

    def push(self, moment: Encoded) -> list[Answer]:
        """See `Answering`; features pass the encoder of `Stepper` unchanged."""
        return [Answer(moment.time, self._stepper.step({0: moment.features})[0].values)]

    def flush(self) -> list[Answer]:
        """See `Answering`."""
        return []

    def event_ended(self) -> None:
        """See `Answering`."""
        if self._reset.policy == "event":
            self._stepper.restart(0)


class WindowAnswers:
    """The head on one window after the other.

    A model of whole clips answers in the middle of each window; the first answer also stands at the first moment and
    the last one at the last. Of a model with an answer per moment each window gives its middle part, so that a moment
    has as much before as behind it; the first one gives its beginning too, the last one its end. The last window ends
    with the recording. A recording that is shorter than a window is one.

    Args:
        predictor: the model.
        window: moments.
        stride: moments from one window to the next, at most `window`.
    """

    def __init__(self, predictor: Predictor, window: int, stride: int) -> None:
        if not 1 <= stride <= window:
            raise ValueError("a stride is at least a moment and at most a window")
        self._predictor, self._window, self._stride = predictor, window, stride
        self._held: deque[Encoded] = deque(maxlen=window)
        self._count = self._begin = self._done = 0
        self._said = -np.inf

    def push(self, moment: Encoded) -> list[Answer]:
        """See `Answering`."""
        self._held.append(moment)
        self._count += 1
        if self._count < self._begin + self._window:
            return []
        self._begin += self._stride
        return self._answers(over=False)

    def flush(self) -> list[Answer]:
        """See `Answering`."""
        return self._answers(over=True) if self._count else []

    def event_ended(self) -> None:
        """See `Answering`: a window has no state."""

    def _answers(self, over: bool) -> list[Answer]:
        names = self._held[0].features
        output = self._predictor.from_features({n: np.stack([each.features[n] for each in self._held]) for n in names})
        return self._per_moment(output, over) if self._predictor.model.per_moment else self._whole(output, over)

    def _whole(self, output: NDArray[np.float64], over: bool) -> list[Answer]:
        held = self._held
        times = [(held[(len(held) - 1) // 2].time + held[len(held) // 2].time) / 2]
        if self._said == -np.inf:
            times.insert(0, held[0].time)
        if over:
            times.append(held[-1].time)
        found = []
        for time in times:
            if time > self._said:
                found.append(Answer(time, output))
                self._said = time
        return found

    def _per_moment(self, output: NDArray[np.float64], over: bool) -> list[Answer]:
        base = self._count - len(self._held)
        end = self._count if over else base + (self._window + self._stride) // 2
        places = range(self._done - base, end - base)
        self._done = end
        return [Answer(self._held[place].time, output[place]) for place in places]
