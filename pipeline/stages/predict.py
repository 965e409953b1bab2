"""From files to probabilities: the one path that evaluation, classification and the Python API share.

Clips go through the network one at a time: a clip's frames are already a batch for its encoder, and a clip's numbers
then cannot depend on what else is being classified. The same file gives the same bits everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.batches import ClipFile, collate, stream_clips
from pipeline.data.catalog import Policy
from pipeline.data.clips import ClipInputs, Plan
from pipeline.errors import VideoError
from pipeline.model import checkpoint
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier
from pipeline.stages.devices import choose_device, choose_workers


@dataclass(frozen=True)
class Prediction:
    """What one file came to.

    Attributes:
        path: as it was given.
        probabilities: float64 (K), summing to 1, in the order of the classes; None when the file gave no clip.
        error: why there is none.
        frames: moments the model saw.
        duration: seconds of the file.
        seconds: of work for this file alone, decoding not counted (it overlaps).
        note: what is wrong with a file that was classified all the same, such as one that is cut off.
    """

    path: str
    probabilities: NDArray[np.float64] | None
    error: VideoError | None = None
    frames: int = 0
    duration: float = 0.0
    seconds: float = 0.0
    note: str = ""


class Predictor:
    """A trained classifier with everything it needs to read files: the contents of one checkpoint.

    Args:
        model: in evaluation mode.
        card: classes, configuration and origin.
        device: where to compute.
        digest: names the checkpoint in results.

    Example:
        >>> predictor = pipeline.load("runs/demo/best")
        >>> [p.probabilities for p in predictor.predict(["clip.mp4"])]
    """

    def __init__(self, model: Classifier, card: Card, device: torch.device, digest: str) -> None:
        self.model = model.to(device).eval()
        self.card = card
        self.device = device
        self.digest = digest
        self.plan = Plan.of(checkpoint.config_of(card))

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities."""
        return self.card.classes

    def predict(
        self, files: Sequence[str | ClipFile], workers: int = 0, policy: Policy | None = None
    ) -> Iterator[Prediction]:
        """Predictions in the order of `files`; a file that cannot be read gives one with `error` set.

        Args:
            files: paths, or clips of a catalog.
            workers: decoding processes; 0 decodes in this process, and a file that crashes the decoder ends it.
            policy: what a file may cost, and whether a damaged one is classified by what decodes of it and noted;
                None: the limits of the training, and yes.
        """
        items = [file if isinstance(file, ClipFile) else ClipFile(str(file)) for file in files]
        if not items:
            return
        policy = policy or Policy(self.plan.limits, "accept")
        plan = replace(self.plan, limits=policy.limits, video=replace(self.plan.video, partial=policy.partial))
        for loaded in stream_clips(items, plan, choose_workers(workers)):
            path = items[loaded.index].path
            if loaded.clip is None:
                yield Prediction(path, None, loaded.error)
                continue
            started = time.perf_counter()
            probabilities = self.probabilities(loaded.clip)
            seconds = time.perf_counter() - started
            yield Prediction(path, probabilities, None, loaded.clip.length, loaded.duration, seconds, loaded.note)

    @torch.inference_mode()
    def probabilities(self, clip: ClipInputs) -> NDArray[np.float64]:
        """float64 (K) for one clip."""
        return self.from_features(encode_clip(self.model, clip, self.device))

    @torch.inference_mode()
    def from_features(self, features: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """float64 (K) from one clip's features, per stream float32 (T, D)."""
        batch = collate([features], [-1]).to(self.device)
        logits = self.model.head(batch.inputs, batch.lengths)[0]
        return torch.softmax(logits.double(), dim=-1).cpu().numpy()


@torch.inference_mode()
def encode_clip(model: Classifier, clip: ClipInputs, device: torch.device) -> dict[str, NDArray[np.float32]]:
    """One clip through the encoders alone: per stream float32 (T, D). The model must be in evaluation mode."""
    batch = collate([clip.inputs], [-1]).to(device)
    encoded = model.encode(batch.inputs, batch.lengths)
    return {name: x[0].float().cpu().numpy() for name, x in encoded.items()}


def load_predictor(folder: Path, device: str = "auto") -> Predictor:
    """Read a checkpoint folder.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    model, card = checkpoint.load(folder)
    return Predictor(model, card, choose_device(device), checkpoint.digest(folder))
