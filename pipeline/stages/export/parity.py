"""How far the files that were written are from the checkpoint: measured on the files themselves, clip by clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.batches import collate
from pipeline.errors import ExportError
from pipeline.model.classifier import Classifier
from pipeline.model.plain.network import size_of
from pipeline.model.plain.trace import quiet
from pipeline.stages.export.engine import OnnxEngine

Arrays = dict[str, NDArray[Any]]

TOLERANCE = 1e-4
"""Largest difference of logits that is accepted; of numbers, in standard deviations of the training targets."""
DIGITS = 1e-5
"""Where logits are larger than 10, float32 has no digits for that: this share of the largest is accepted."""
SHAPES = ((1, 1), (3, 5), (2, 24))
"""Clips and moments of the random batches: a still image, then more clips and more moments than the traced ones."""
STEPS = 24
"""Moments of a clip that are fed to step.onnx one by one."""


@dataclass
class Parity:
    """What was found, per file.

    Attributes:
        differences: file -> "random" or "real" -> the largest difference.
        allowed: the same, the largest that is accepted.
        lengths: "random" or "real" -> moments of every clip that was compared.
    """

    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    allowed: dict[str, dict[str, float]] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)

    def add(self, file: str, kind: str, found: Any, wanted: Any, scale: float, tolerance: float) -> None:
        """Compare one answer; both in arrays of one shape. A NaN on one side alone counts as infinitely far."""
        found, wanted = np.asarray(found, np.float64) / scale, np.asarray(wanted, np.float64) / scale
        if found.shape != wanted.shape:
            raise ExportError(f"{file} gives the shape {found.shape}, the checkpoint {wanted.shape}")
        difference = float(np.nan_to_num(np.abs(found - wanted), nan=np.inf).max(initial=0.0))
        largest = float(np.nan_to_num(np.abs(wanted)).max(initial=0.0))
        of_file, allowed = self.differences.setdefault(file, {}), self.allowed.setdefault(file, {})
        of_file[kind] = max(of_file.get(kind, 0.0), difference)
        allowed[kind] = max(allowed.get(kind, 0.0), tolerance, DIGITS * largest)

    def check(self) -> None:
        """Raises ExportError where a file is too far from the checkpoint."""
        for file, kinds in self.differences.items():
            for kind, difference in kinds.items():
                if not difference <= self.allowed[file][kind]:
                    raise ExportError(
                        f"{file} differs from the checkpoint by {difference:.1e} on {kind} clips, more than the "
                        f"{self.allowed[file][kind]:.1e} that is accepted; nothing was written (--tolerance sets it)"
                    )

    def worst(self) -> float:
        """The largest difference of all files."""
        return max((value for kinds in self.differences.values() for value in kinds.values()), default=0.0)


def measure(
    model: Classifier, folder: Path, real: Sequence[Arrays], size: int, tolerance: float, advance: Callable[[int], None]
) -> Parity:
    """Compare every file of an exported folder with the model it was made from.

    Args:
        model: on the CPU, in evaluation mode.
        folder: with export.json and the files it names.
        real: inputs of real clips, per stream (T, ...).
        size: S of the frames.
        tolerance: see `TOLERANCE`.
        advance: told of each batch that is done.
    """
    engine, found = OnnxEngine(folder), Parity()
    scale = float(model.target_std) if model.numeric else 1.0
    program = _program(folder / "clip.pt2") if "clip.pt2" in engine.card["files"] else None
    batches = [("random", batch) for batch in random_batches(model, size)]
    batches += [("real", batch) for batch in _lengths(real)]
    for kind, clips in batches:
        found.lengths.setdefault(kind, []).extend(len(next(iter(clip.values()))) for clip in clips)
        _compare(found, kind, model, engine, program, clips, scale, tolerance)
        advance(1)
    return found


@torch.inference_mode()
def _compare(
    found: Parity,
    kind: str,
    model: Classifier,
    engine: OnnxEngine,
    program: Callable[..., Tensor] | None,
    clips: Sequence[Arrays],
    scale: float,
    tolerance: float,
) -> None:
    """One batch through every file. The features that the later files read are the model's own."""
    batch = collate(clips, [-1] * len(clips))
    features = model.encode(batch.inputs, batch.lengths)
    wanted = _valid(model, model.head(features, batch.lengths).numpy(), batch.lengths)
    each = [{name: x[i, :length].numpy() for name, x in features.items()} for i, length in enumerate(batch.lengths)]
    if model.encoders:
        for clip, own in zip(clips, each, strict=True):
            for name, x in engine.encode({name: clip[name] for name in model.encoders}).items():
                found.add("encoder.onnx", kind, x, own[name], 1.0, tolerance)
    for answer, own_answer in zip(engine.head(each), wanted, strict=True):
        found.add("head.onnx", kind, answer, own_answer, scale, tolerance)
    if "clip.onnx" in engine.card["files"]:
        given = {name: x.numpy() for name, x in batch.inputs.items()}
        answers = _valid(model, engine.clip(given, batch.lengths.numpy()), batch.lengths)
        for answer, own_answer in zip(answers, wanted, strict=True):
            found.add("clip.onnx", kind, answer, own_answer, scale, tolerance)
    if program is not None:
        answers = _valid(model, program(batch.inputs, batch.lengths).numpy(), batch.lengths)
        for answer, own_answer in zip(answers, wanted, strict=True):
            found.add("clip.pt2", kind, answer, own_answer, scale, tolerance)
    if engine.streamable:
        for own in each:
            _compare_steps(found, kind, model, engine, own, scale, tolerance)


def _compare_steps(
    found: Parity, kind: str, model: Classifier, engine: OnnxEngine, features: Arrays, scale: float, tolerance: float
) -> None:
    """One clip, moment by moment, by both."""
    state, own_state = None, None
    for moment in range(min(STEPS, len(next(iter(features.values()))))):
        now = {name: x[moment : moment + 1] for name, x in features.items()}
        own, own_state = model.step({name: torch.from_numpy(x) for name, x in now.items()}, own_state)
        answer, state = engine.step(now, state)
        found.add("step.onnx", kind, answer, own.numpy(), scale, tolerance)


def _valid(model: Classifier, answers: NDArray[Any], lengths: Tensor) -> list[NDArray[Any]]:
    """Each clip's answer; one per moment without the padding, where it means nothing."""
    return [row[: int(length)] if model.per_moment else row for row, length in zip(answers, lengths, strict=True)]


def random_batches(model: Classifier, size: int) -> list[list[Arrays]]:
    """Clips of noise in batches of `SHAPES`, the first of each of full length: frames, or features as large as the
    training clips' were.
    """
    rng = np.random.default_rng(0)
    made = []
    for batch, longest in SHAPES:
        lengths = [longest, *rng.integers(1, longest + 1, batch - 1)]
        made.append(
            [{name: _noise(model, name, size, int(length), rng) for name in model.streams} for length in lengths]
        )
    return made


def _noise(model: Classifier, name: str, size: int, length: int, rng: np.random.Generator) -> NDArray[Any]:
    if name in model.encoders:
        return rng.integers(0, 256, (length, 3, size, size), dtype=np.uint8)
    normal = rng.standard_normal((length, size_of(model, name)))
    standardisation: Any = model.branches[name].standardisation  # type: ignore[union-attr]
    return (normal * standardisation.std.numpy() + standardisation.mean.numpy()).astype(np.float32)


def _lengths(real: Sequence[Arrays]) -> list[list[Arrays]]:
    """Real clips two by two, every second one cut to two thirds, so that a batch has different lengths."""
    cut = [
        {name: x[: max(1, 2 * len(x) // 3)] if number % 2 else x for name, x in clip.items()}
        for number, clip in enumerate(real)
    ]
    return [cut[start : start + 2] for start in range(0, len(cut), 2)]


def _program(path: Path) -> Callable[..., Tensor]:
    """The program that was just written, read again. Never call this on a file of somebody else: it may hold code."""
    with quiet():
        loaded: Callable[..., Tensor] = torch.export.load(path).module()
    return loaded
