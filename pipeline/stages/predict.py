"""From files to probabilities or numbers: the one path that evaluation, classification and the Python API share.

Frames are batched across files, always as many at a time, and each clip's features pass the head by themselves: on a
CPU a clip's numbers are the same bits whatever else is being classified, and everywhere (see `stages/engine`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import FetchConfig
from pipeline.data.clip_file import ClipFile, Policy
from pipeline.data.clips import ClipInputs, Plan
from pipeline.data.loading import LoadedClip
from pipeline.data.stream import stream_clips
from pipeline.errors import VideoError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier, State
from pipeline.stages.batching import Answered, answer_all
from pipeline.stages.devices import choose_device, choose_workers
from pipeline.stages.distributed import bytes_from_first, is_first, place
from pipeline.stages.engine import Engine, Precision, TorchEngine, encode_moments, image_streams


@dataclass(frozen=True)
class Prediction:
    """What one file came to.

    Attributes:
        path: as it was given.
        probabilities: float64 (K), summing to 1, in the order of the classes; (T, K) where the task is a label for
            each moment; None when the file gave no clip, and where the task is a number.
        error: why there is no clip; None when there is one.
        frames: moments the model saw.
        duration: seconds of the file.
        seconds: of the model's work for this file, decoding not counted (it overlaps); of a call that it shares with
            others its part.
        note: what is wrong with a file that was classified all the same, such as one that is cut off.
        values: where the task is a number, in the target's unit: float64 (1,), or (T,) with one for each moment.
        times: float64 (T,), the moments in seconds after the file's first frame; None when the file gave no clip.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    error: VideoError | None = None
    frames: int = 0
    duration: float = 0.0
    seconds: float = 0.0
    note: str = ""
    values: NDArray[np.float64] | None = None
    times: NDArray[np.float64] | None = None


class Predictor:
    """A trained model with everything it needs to read files: the contents of one checkpoint.

    Args:
        model: in evaluation mode.
        card: classes, configuration and origin.
        device: where to compute.
        digest: names the checkpoint in results.
        engine: what computes the answers to whole clips; None: PyTorch.
        folder: where the checkpoint lies, for what is noted beside it; None: nowhere that stays.

    Example:
        >>> predictor = pipeline.load("runs/demo/best")
        >>> [p.probabilities for p in predictor.predict(["clip.mp4"])]
    """

    def __init__(
        self,
        model: Classifier,
        card: Card,
        device: torch.device,
        digest: str,
        engine: Engine | None = None,
        folder: Path | None = None,
    ) -> None:
        self.model = model.to(device).eval()
        self.card = card
        self.device = device
        self.digest = digest
        self.engine = engine or TorchEngine(self.model, device)
        self.folder = folder
        self.temperature = checkpoint.temperature_of(card)
        config = checkpoint.config_of(card)
        self.task = config.task
        self.plan = Plan.of(config)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities; none where the task is a number."""
        return self.card.classes

    def predict(
        self,
        files: Sequence[str | ClipFile],
        workers: int = 0,
        policy: Policy | None = None,
        shuffle: bool = False,
        fetch: FetchConfig | None = None,
    ) -> Iterator[Prediction]:
        """Predictions in the order of `files`; a file that cannot be read gives one with `error` set.

        Args:
            files: paths, addresses (s3://, gs://, http://, https://), or clips of a catalog.
            workers: decoding processes; 0 decodes in this process, and a file that crashes the decoder ends it.
            policy: what a file may cost, and whether a damaged one is classified by what decodes of it and noted;
                None: the limits of the training, and yes.
            shuffle: what is left of the answers without the order of time, see `answer_shuffled`.
            fetch: what bringing files from elsewhere may cost; None: the defaults.
        """
        items = [file if isinstance(file, ClipFile) else ClipFile(str(file)) for file in files]
        if not items:
            return
        clips = stream_clips(items, self.reading(policy), choose_workers(workers), fetch=fetch)
        yield from self.answers(clips, items, shuffle)

    def reading(self, policy: Policy | None) -> Plan:
        """How files are read under a policy, see `predict`."""
        policy = policy or Policy(self.plan.limits, "accept")
        return replace(self.plan, limits=policy.limits, video=replace(self.plan.video, partial=policy.partial))

    def answers(
        self, clips: Iterable[LoadedClip], files: Sequence[ClipFile], shuffle: bool = False
    ) -> Iterator[Prediction]:
        """The part of `predict` that comes after decoding: `files` are those that the clips' `index` counts."""
        if shuffle:
            clips = (_shuffled(loaded, files[loaded.index].digest) for loaded in clips)
        for one in answer_all(self.engine, clips):
            yield self._prediction(one, files[one.loaded.index], shuffle)

    def _prediction(self, one: Answered, file: ClipFile, shuffle: bool) -> Prediction:
        """What became of one file; of a shuffled clip in the order of time again."""
        loaded = one.loaded
        if one.output is None:
            return Prediction(file.path, None, loaded.error)
        answer, times = self._finished(one.output), one.times
        if shuffle:
            back = np.argsort(shuffled_order(one.length, file.digest))
            times, answer = times[back], answer[back] if self.model.per_moment else answer
        probabilities, values = (None, answer) if self.model.numeric else (answer, None)
        return Prediction(
            file.path, probabilities, None, one.length, loaded.duration, one.seconds, loaded.note, values, times
        )

    def answer(self, clip: ClipInputs) -> NDArray[np.float64]:
        """For one clip, float64: probabilities (K) or a number (1,); for each moment, (T, K) or (T,)."""
        return self.from_features(encode_moments(self.engine, clip.inputs, image_streams(clip.inputs)))

    def answer_shuffled(self, clip: ClipInputs, digest: str) -> NDArray[np.float64]:
        """The same for the clip's moments in random order, each with what it had: frame, difference, flow.

        Args:
            clip: in its order.
            digest: the clip's identity, which decides the order; in hex, may be empty.

        Returns:
            As of `answer`; what is for each moment is in the order of time again.
        """
        order = shuffled_order(clip.length, digest)
        answer = self.answer(clip.reordered(order))
        return answer[np.argsort(order)] if self.model.per_moment else answer

    def from_features(self, features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """The same from one clip's features, per stream float32 (T, D)."""
        return self._finished(self.engine.head([features])[0])

    @torch.inference_mode()
    def step(
        self, moment: Mapping[str, NDArray[np.generic]], state: State | None = None
    ) -> tuple[NDArray[np.float64], State]:
        """One moment after the other, as they come: constant time and memory, however long it goes on.

        Args:
            moment: per stream one moment of `ClipInputs.inputs`: uint8 (3, S, S) or float32 (D,).
            state: what the previous call returned; None at the start.

        Returns:
            float64 probabilities (K) or a number (1,), and the next call's state: for a task with an answer for each
            moment that of this moment, else what `answer` gives for the clip so far.

        Raises:
            ConfigError: the model reads both ways.
        """
        inputs = {name: torch.from_numpy(np.ascontiguousarray(x))[None].to(self.device) for name, x in moment.items()}
        output, state = self.model.step(inputs, state)
        return self._finished(output[0].cpu().numpy()), state

    def _finished(self, output: NDArray[np.float32]) -> NDArray[np.float64]:
        """The model's output for one clip (..., K), as `answer` gives it."""
        one = torch.from_numpy(output).double()
        if not self.model.numeric:
            one = torch.softmax(one / self.temperature, dim=-1)
        elif self.model.per_moment and one.ndim == 2:
            one = one.squeeze(-1)
        found: NDArray[np.float64] = one.numpy()
        return found


def shuffled_order(length: int, digest: str) -> NDArray[np.int64]:
    """Random, the same each time for a clip of this digest (hex, may be empty) and number of moments."""
    return np.random.default_rng([int(digest[:12] or "0", 16), length]).permutation(length)


def encode_clip(model: Classifier, clip: ClipInputs, device: torch.device) -> dict[str, NDArray[np.float32]]:
    """One clip through the encoders alone: per stream float32 (T, D). The model must be in evaluation mode."""
    return encode_moments(TorchEngine(model, device), clip.inputs, image_streams(clip.inputs))


def _shuffled(loaded: LoadedClip, digest: str) -> LoadedClip:
    clip = loaded.clip
    return loaded if clip is None else replace(loaded, clip=clip.reordered(shuffled_order(clip.length, digest)))


def load_predictor(folder: Path, device: str | torch.device = "auto", precision: Precision = "fp32") -> Predictor:
    """Read a checkpoint folder; of several processes the first one's.

    Raises:
        ConfigError: the device or the precision cannot be had.
        CheckpointError: it is missing or damaged.
    """
    chosen = choose_device(device) if isinstance(device, str) else device
    if place().world > 1:
        with tempfile.TemporaryDirectory() as copy:
            packed = checkpoint.contents(folder) if is_first() else {}
            for name in checkpoint.FILES:
                (Path(copy) / name).write_bytes(bytes_from_first(lambda name=name: packed[name]))  # type: ignore[misc]
            return _read_predictor(Path(copy), chosen, precision, folder)
    return _read_predictor(folder, chosen, precision, folder)


def _read_predictor(place: Path, device: torch.device, precision: Precision, folder: Path) -> Predictor:
    model, card = checkpoint.load(place)
    engine = TorchEngine(model.to(device), device, precision)
    return Predictor(model, card, device, checkpoint.digest(place), engine, folder)
