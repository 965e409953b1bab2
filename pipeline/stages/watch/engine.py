"""What computes: moments of several sources at once through the encoder, then a step of the recurrence.

A state is a nested value of tensors whose first axis is the source, so states of several sources are joined for one
step and taken apart again. Another engine (such as one for an exported model) is a class with these methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.gates import step_with_gates
from pipeline.stages.predict import Predictor

State = Any
Inputs = Mapping[str, NDArray[np.generic]]


class Engine(Protocol):
    """Answers to moments; keeps nothing between calls."""

    def encode(self, moments: Sequence[Inputs]) -> Any:
        """Moments of B sources to features, by one call of each encoder; `rows` chooses among them."""

    def rows(self, features: Any, chosen: Sequence[int]) -> Any:
        """Features of the rows chosen, in that order; a row may be chosen more than once."""

    def step(
        self, features: Any, states: Sequence[State], gates: bool = False
    ) -> tuple[NDArray[np.float64], list[State], list[dict[str, float]]]:
        """One step of B rows.

        Args:
            features: of B rows.
            states: B states of earlier calls, all of them or none; None begins.
            gates: whether the gates are wanted.

        Returns:
            Answers (B, K), B states, and per row each gate's mean (empty unless wanted).
        """


class TorchSteps:
    """The checkpoint's own model; see `Engine`."""

    def __init__(self, predictor: Predictor) -> None:
        self.model, self.device, self.temperature = predictor.model, predictor.device, predictor.temperature

    @torch.inference_mode()
    def encode(self, moments: Sequence[Inputs]) -> dict[str, torch.Tensor]:
        """See `Engine`."""
        features = {}
        for name in self.model.streams:
            joined = torch.from_numpy(np.stack([moment[name] for moment in moments])).to(self.device)
            features[name] = self.model.encoders[name](joined) if joined.ndim == 4 else joined
        return features

    def rows(self, features: dict[str, torch.Tensor], chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """See `Engine`."""
        return {name: x if list(chosen) == list(range(len(x))) else x[list(chosen)] for name, x in features.items()}

    @torch.inference_mode()
    def step(
        self, features: dict[str, torch.Tensor], states: Sequence[State], gates: bool = False
    ) -> tuple[NDArray[np.float64], list[State], list[dict[str, float]]]:
        """See `Engine`."""
        before = join(states)
        means: dict[str, torch.Tensor] = {}
        if gates:
            output, after, means = step_with_gates(self.model, features, before)
        else:
            output, after = self.model.step(features, before)
        answers = _answers(output.cpu().numpy(), self.model.numeric, self.temperature)
        lists = {name: values.tolist() for name, values in means.items()}
        shown = [{name: values[row] for name, values in lists.items()} for row in range(len(states))]
        return answers, split(after, len(states)), shown


class Graphs(Protocol):
    """What an exported model must do: images (B, 3, S, S) to features (B, D), and one step of B clips."""

    numeric: bool

    def encode(self, frames: Mapping[str, NDArray[Any]], /) -> Mapping[str, NDArray[np.float32]]:
        """Images of every stream that has an encoder to features, by stream."""

    def step(self, moment: Mapping[str, NDArray[Any]], state: Any = None, /) -> tuple[NDArray[np.float32], Any]:
        """Logits or numbers, and the next state: arrays by name, the first axis is the clip."""


class GraphSteps:
    """An exported model, such as one in ONNX Runtime; it does not tell what its gates do. See `Engine`."""

    def __init__(self, graphs: Graphs, temperature: float) -> None:
        self._graphs, self._temperature = graphs, temperature

    def encode(self, moments: Sequence[Inputs]) -> dict[str, NDArray[np.float32]]:
        """See `Engine`."""
        joined: dict[str, Any] = {name: np.stack([moment[name] for moment in moments]) for name in moments[0]}
        images = {name: x for name, x in joined.items() if x.ndim == 4}
        return {**joined, **(self._graphs.encode(images) if images else {})}

    def rows(self, features: dict[str, NDArray[np.float32]], chosen: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """See `Engine`."""
        return {name: x[list(chosen)] for name, x in features.items()}

    def step(
        self, features: dict[str, NDArray[np.float32]], states: Sequence[State], gates: bool = False
    ) -> tuple[NDArray[np.float64], list[State], list[dict[str, float]]]:
        """See `Engine`."""
        before = None if states[0] is None else {k: np.concatenate([one[k] for one in states]) for k in states[0]}
        output, after = self._graphs.step(features, before)
        answers = _answers(output, self._graphs.numeric, self._temperature)
        rows = [{name: x[row : row + 1] for name, x in after.items()} for row in range(len(states))]
        return answers, rows, [{} for _ in states]


def steps_of(predictor: Predictor) -> Engine:
    """What computes for a predictor: its checkpoint's model, or the graphs that stand for it."""
    graphs: Graphs | None = getattr(predictor.model, "engine", None)
    return TorchSteps(predictor) if graphs is None else GraphSteps(graphs, predictor.temperature)


def _answers(output: NDArray[Any], numeric: bool, temperature: float) -> NDArray[np.float64]:
    """What the network says of B moments as `Predictor` answers: probabilities (B, K), or numbers (B, 1)."""
    values = output.astype(np.float64)
    if numeric:
        return values
    raised = np.exp((values - values.max(axis=-1, keepdims=True)) / temperature)
    answers: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return answers


def join(states: Sequence[State]) -> State:
    """Several states as one: tensors one below the other; a number becomes a column, which computes the same."""
    first = states[0]
    if first is None or len(states) == 1:
        return first
    if isinstance(first, dict):
        return {key: join([state[key] for state in states]) for key in first}
    if isinstance(first, tuple):
        return tuple(join(parts) for parts in zip(*states, strict=True))
    if isinstance(first, torch.Tensor):
        return torch.cat(list(states))
    return torch.tensor([[float(state)] for state in states])


def split(state: State, count: int) -> list[State]:
    """A joined state as those of its rows; `join` of them is the same again."""
    if count == 1 or state is None:
        return [state] * count
    if isinstance(state, dict):
        parts = {key: split(part, count) for key, part in state.items()}
        return [{key: part[row] for key, part in parts.items()} for row in range(count)]
    if isinstance(state, tuple):
        columns = [split(part, count) for part in state]
        return [tuple(column[row] for column in columns) for row in range(count)]
    if isinstance(state, torch.Tensor):
        return list(state.split(1))
    return [state] * count  # a number that all rows share
