"""A `Predictor` whose network is run by ONNX Runtime: `--engine onnx`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.config import TrackingConfig
from pipeline.errors import CheckpointError, ConfigError
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier
from pipeline.stages.export.cached import exported
from pipeline.stages.export.engine import CARD, OnnxEngine
from pipeline.stages.models import load_model
from pipeline.stages.predict import Predictor


class OnnxModel:
    """An `OnnxEngine` with the calls of a `Classifier` that answering needs: tensors on the CPU in and out.

    Attributes:
        engine: what computes.
        numeric, per_moment, streamable: as of `Classifier`.
    """

    def __init__(self, engine: OnnxEngine) -> None:
        self.engine = engine
        self.numeric, self.per_moment, self.streamable = engine.numeric, engine.per_moment, engine.streamable

    def to(self, device: torch.device) -> OnnxModel:
        """Nothing: the engine was opened on its device, and takes arrays."""
        return self

    def eval(self) -> OnnxModel:
        """Nothing: it cannot train."""
        return self

    def encode(self, inputs: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """As `Classifier.encode`: frames or features per stream to features (B, T, D), 0 in the padding."""
        images = {name: x.numpy() for name, x in inputs.items() if x.ndim == 5}
        found = {name: x.numpy() for name, x in inputs.items() if x.ndim == 3}
        for clip, length in enumerate(lengths.tolist()):
            for start in range(0, length, self.engine.images) if images else ():
                part = slice(start, min(start + self.engine.images, length))
                for name, x in self.engine.encode({name: x[clip, part] for name, x in images.items()}).items():
                    found.setdefault(name, np.zeros((*images[name].shape[:2], x.shape[1]), np.float32))[clip, part] = x
        return {name: torch.from_numpy(found[name]) for name in inputs}

    def head(self, features: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        """As `Classifier.head`: (B, T, D) per stream to (B, K), or (B, T, K)."""
        clips = [{name: x[i, :length].numpy() for name, x in features.items()} for i, length in enumerate(lengths)]
        answers = [torch.from_numpy(answer) for answer in self.engine.head(clips)]
        return torch.nn.utils.rnn.pad_sequence(answers, batch_first=True) if self.per_moment else torch.stack(answers)

    def step(self, inputs: Mapping[str, Tensor], state: Any = None) -> tuple[Tensor, Any]:
        """As `Classifier.step`."""
        answer, after = self.engine.step({name: x.numpy() for name, x in inputs.items()}, state)
        return torch.from_numpy(answer), after


def load_onnx(name: str | Path, device: str = "auto", tracking: TrackingConfig | None = None) -> Predictor:
    """A model by name, run by ONNX Runtime.

    Args:
        name: a folder that `export` wrote; or as of `load_model`: its graphs are then made once and kept in the cache.
        device: auto, cpu or cuda, see `OnnxEngine`.
        tracking: where the MLflow store is.

    Raises:
        ConfigError: the extra [onnx] is not installed, or ONNX Runtime has no such device.
        CheckpointError: nothing there, or damaged.
        ExportError: the checkpoint cannot be written as graphs.
        TrackingError: the store does not have it.
    """
    folder = Path(name)
    if not (folder / CARD).is_file():
        folder = exported(load_model(name, "cpu", tracking))
    engine = OnnxEngine(folder, 1, device, parallel=torch.get_num_threads())
    try:
        card = Card(**engine.card["card"])
        model = cast(Classifier, OnnxModel(engine))
        return Predictor(model, card, torch.device("cpu"), engine.card["checkpoint"], engine=engine)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder / CARD} is damaged (its card is not that of a checkpoint)") from error
