"""What computes a model's answers: arrays in, arrays out, so that PyTorch can be replaced.

The encoder is always called with the same number of images, the last call filled up with zeros. Its convolutions then
take the same path for every image: a clip's features are the same bits whatever shares the call with it, whichever
place it has in it, and however many threads compute. A call with another number of images gives other last bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.batches import collate
from pipeline.errors import ConfigError
from pipeline.model.classifier import Classifier
from pipeline.model.encoder import Encoder

Precision = Literal["fp32", "bf16"]
Arrays = Mapping[str, NDArray[np.generic]]
"""Stream name -> values; here always with a first axis of moments."""

CPU_IMAGES = 16
"""Images per call on a CPU: the moments of a usual clip, and maps that stay in the cache."""
GPU_IMAGES = 256
"""Images per call elsewhere, where a small call does not fill the device."""
GPU_STEPS = 4096
"""Moments per call of the head elsewhere: clips of one length share a call. On a CPU each clip has its own."""


class Engine(Protocol):
    """One model, ready to answer. Calls may come from several threads at once.

    Attributes:
        name: library, device and precision: answers of engines of one name are the same.
        images: images of each stream that `encode` is called with, always.
        parallel: calls of `encode` that pay at the same time.
    """

    name: str
    images: int
    parallel: int

    def encode(self, frames: Arrays) -> dict[str, NDArray[np.float32]]:
        """Images uint8 (images, 3, S, S) per stream that has an encoder, to features float32 (images, D)."""

    def head(self, features: Sequence[Arrays]) -> list[NDArray[np.float32]]:
        """Features float32 (T, D) per stream of clips of one length T, to what the model says of each: logits (K) or
        a number (1); for a task with an answer per moment (T, K) or (T, 1).
        """

    def clips(self, length: int) -> int:
        """Most clips of this many moments that `head` takes at once."""


class TorchEngine:
    """PyTorch, on any device.

    On a CPU an encoder call has one thread, and as many run at a time as PyTorch may use threads: threads of one call
    wait for each other at every layer, and one that shares its core with a decoding process holds up the others.

    Args:
        model: on `device`, in evaluation mode.
        device: where to compute.
        precision: of the encoder. bf16 moves features by several per cent; not offered on a CPU. None: as it is.

    Raises:
        ConfigError: bf16 on a CPU.
    """

    def __init__(self, model: Classifier, device: torch.device, precision: Precision | None = None) -> None:
        if precision == "bf16" and device.type == "cpu":
            raise ConfigError("precision bf16 is for GPUs; on a CPU it moves features by several per cent: use fp32")
        self.model, self.device = model, device
        self.images = CPU_IMAGES if device.type == "cpu" else GPU_IMAGES
        self.parallel = torch.get_num_threads() if device.type == "cpu" else 1
        encoders = [encoder for encoder in model.encoders.values() if isinstance(encoder, Encoder)]
        for encoder in encoders:
            encoder.compute_in(precision or encoder.precision)
        self.name = " ".join(["torch", device.type, *sorted({encoder.precision for encoder in encoders})])

    @torch.inference_mode()
    def encode(self, frames: Arrays) -> dict[str, NDArray[np.float32]]:
        """See `Engine`."""
        found = {}
        for name, images in frames.items():
            on_device = torch.from_numpy(images).to(self.device, non_blocking=True)
            found[name] = self.model.encoders[name](on_device).float().cpu().numpy()
        return found

    @torch.inference_mode()
    def head(self, features: Sequence[Arrays]) -> list[NDArray[np.float32]]:
        """See `Engine`."""
        given = list(features)
        if self.device.type != "cpu":  # one shape for each length: the same kernels, whoever else is there
            given += [features[0]] * (self.clips(len(next(iter(features[0].values())))) - len(given))
        batch = collate(given, [-1] * len(given)).to(self.device)
        output = self.model.head(batch.inputs, batch.lengths).float().cpu().numpy()
        return list(output[: len(features)])

    def clips(self, length: int) -> int:
        """See `Engine`."""
        return 1 if self.device.type == "cpu" else max(1, GPU_STEPS // max(length, 64))


def encode_moments(engine: Engine, inputs: Arrays, images: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """One clip's features, float32 (T, D) per stream, in this thread.

    Args:
        engine: what computes.
        inputs: per stream uint8 (T, 3, S, S) images or float32 (T, D) vectors, which are features already.
        images: the streams that are images, see `image_streams`.
    """
    found = {name: np.asarray(x, dtype=np.float32) for name, x in inputs.items() if name not in images}
    if images:
        length = len(inputs[images[0]])
        parts = [
            engine.encode(
                {name: filled_up([inputs[name][start : start + engine.images]], engine.images) for name in images}
            )
            for start in range(0, length, engine.images)
        ]
        found |= {name: np.concatenate([part[name] for part in parts])[:length] for name in images}
    return {name: found[name] for name in inputs}


def image_streams(inputs: Arrays) -> list[str]:
    """The streams of a clip that an encoder has to see."""
    return [name for name, x in inputs.items() if x.ndim == 4]


def filled_up(parts: Sequence[NDArray[np.generic]], count: int) -> NDArray[np.generic]:
    """Arrays (N, ...) one after the other, zeros behind them until there are `count`."""
    present = sum(len(part) for part in parts)
    if len(parts) == 1 and present == count:
        return np.ascontiguousarray(parts[0])
    block = np.zeros((count, *parts[0].shape[1:]), parts[0].dtype)
    np.concatenate(parts, out=block[:present])
    return block
