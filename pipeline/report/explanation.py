"""What an explanation consists of, in plain arrays: what the pictures, the page and the tables of `explain` read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class StreamView:
    """What one stream of the model looked at.

    Attributes:
        name: rgb, difference or flow.
        heat: float32 (T, h, w), signed, in the score's unit: above 0 is what spoke for the answer.
        gradients: float64 (T,), integrated gradients of each moment.
        weights: float64 (T,) summing to 1, where pooling read; None where that does not depend on the clip.
        weights_of: "attention" or "max"; empty without weights.
    """

    name: str
    heat: Values
    gradients: Floats
    weights: Floats | None = None
    weights_of: str = ""


@dataclass(frozen=True)
class LayerView:
    """One recurrent layer in one direction; see `pipeline.model.trace.Trace`.

    Attributes:
        name: layer0, layer0_backward, ...; with the stream before it (`flow/layer0`) where there are several.
        kind: the recurrence, a value of `recurrent.kind`.
        form: which equations hold.
        values: float32 (T, H) by name, in the order of the moments.
        sums: gate -> part -> float32 (T, H).
        half_life: float64 (H) seconds, infinite where nothing is forgotten; None without a gate that forgets.
        influence: float32 (T, H), gradient of the score times the hidden state; None where nothing above reads it.
        zoneout: of the form zoneout.
    """

    name: str
    kind: str
    form: str
    values: dict[str, Values]
    sums: dict[str, dict[str, Values]]
    half_life: Floats | None
    influence: Values | None
    zoneout: float = 0.0

    @property
    def backward(self) -> bool:
        """It read the clip from its end."""
        return self.name.endswith("_backward")

    @property
    def gates(self) -> dict[str, Values]:
        """The gates alone, float32 (T, H)."""
        return {name: self.values[name] for name in GATES if name in self.values}

    @property
    def memory(self) -> Values:
        """What is carried from moment to moment, float32 (T, H): the cell state, or the hidden state without one."""
        return self.values.get("state", self.values["hidden"])

    def order(self) -> NDArray[np.int64]:
        """The units from the longest to the shortest memory; as they are where nothing forgets."""
        units = self.memory.shape[1]
        if self.half_life is None:
            return np.arange(units)
        return np.argsort(-self.half_life, kind="stable")


GATES = ("forget", "input", "output", "reset", "update")


@dataclass(frozen=True)
class Explanation:
    """One clip and what a model made of it.

    Attributes:
        path: the file, as it was given.
        task: of the model.
        answer: in words, "right 0.97".
        explained: the number that the heat maps and the importance are about, in words.
        score: that number.
        classes: their names, in the order of the probabilities; empty where numbers are predicted.
        running: float64 (T, K) probabilities, or (T, 1) numbers, after each moment.
        target: the class that is explained; -1 where it is a number.
        times: float64 (T,), the moments in seconds after the file's first frame.
        duration: seconds.
        occlusion: float64 (T,), how far the score falls when a moment is hidden.
        streams, layers: of the model.
        frames: uint8 (N, H, W, 3), small, those of the moments among them.
        frame_times: float64 (N,) seconds.
        at: int64 (T,), which frame each moment is.
        fit: how the frames were made square for the model, see `VideoConfig.fit`.
        incompleteness: what the integrated gradients miss of the score's difference to the baseline.
        note: what is wrong with a file that was explained all the same.
        model: digest of the checkpoint.
    """

    path: str
    task: str
    answer: str
    explained: str
    score: float
    classes: list[str]
    running: Floats
    target: int
    times: Floats
    duration: float
    occlusion: Floats
    streams: list[StreamView]
    layers: list[LayerView]
    frames: NDArray[np.uint8]
    frame_times: Floats
    at: NDArray[np.int64]
    fit: str
    incompleteness: float = 0.0
    note: str = ""
    model: str = ""

    @property
    def shown(self) -> NDArray[np.uint8]:
        """The frame of each moment, uint8 (T, H, W, 3)."""
        return self.frames[self.at]


def positive(heat: Values) -> Values:
    """What spoke for the answer in 0..1, one scale for the whole clip; (T, h, w).

    The scale is the clip's 99.5th percentile, so that one cell does not darken all others.
    """
    kept = np.maximum(heat, 0.0)
    top = float(np.quantile(kept, 0.995))
    top = top if top > 0 else float(kept.max())
    return np.clip(kept / top, 0, 1).astype(np.float32) if top > 0 else kept
