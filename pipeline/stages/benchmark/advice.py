"""What to change when it is slow: from the phases of a benchmark to one sentence that names an option.

Every option named here is one of `pipeline.config`, or of `classify` with two dashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.stages.benchmark.throughput import LOADING, Phase

FED = 0.85
"""Share of the bound from which on the loader feeds the model as well as can be asked."""
WAITS = 0.2
"""Share of the time waiting for clips from which on more decoding processes are worth their memory."""
LARGE_BATCH = 64
"""Clips from which on a step's fixed costs are small."""
SMALL_FRAMES = 96
"""Pixels below which frames are not made smaller: pretrained encoders need about that."""

_WORDS = {
    "decode": "decoding",
    "transform": "resizing and augmentation",
    "difference": "comparing frames",
    "flow": "optical flow",
    "read": "reading stored features",
    "copy": "batching and copying to the device",
    "encoder": "the encoder's forward pass",
    "head": "the recurrence's forward pass",
    "backward": "the backward pass",
    "optimiser": "the optimiser",
    "tracking": "MLflow",
}


@dataclass(frozen=True)
class Advice:
    """What is slow, and what eases it.

    Attributes:
        bottleneck: the step, by its name in `Phase.seconds`.
        phase: the phase it belongs to: the one that takes longest in the whole job.
        option: what to change.
        text: one sentence.
    """

    bottleneck: str
    phase: str
    option: str
    text: str


def advise(phases: Sequence[Phase], config: Config, cores: int, workers: int) -> Advice:
    """The one thing to change first.

    Args:
        phases: what was measured, at least one.
        config: of the training, or of the model.
        cores: usable ones.
        workers: decoding processes at work; 0: the main process decodes.
    """
    phase = max(phases, key=lambda one: one.total)
    step = phase.bottleneck
    option, remedy = _remedy(phase, step, config, cores, workers)
    share = f"{_WORDS[step]} takes {phase.shares[step]:.0%} of the work"
    where = {"extraction": "of extraction, which is done once", "classification": "of classification"}.get(
        phase.name, "of an epoch"
    )
    return Advice(step, phase.name, option, f"{share} {where}: {remedy}.")


def _remedy(phase: Phase, step: str, config: Config, cores: int, workers: int) -> tuple[str, str]:
    loads = any(name in phase.seconds for name in LOADING)
    if loads and workers < cores and phase.efficiency < FED and phase.waiting > WAITS:
        option = "--workers" if phase.name == "classification" else "training.workers"
        return option, f"{workers} decoding processes do not feed the model; {option} {cores} uses every core"
    if phase.name == "classification":
        return _for_classification(phase, step)
    if phase.name == "stored features":
        return _for_features(step, config)
    if phase.name == "extraction" and config.augmentation.views > 1:
        views = config.augmentation.views
        return "augmentation.views", f"each training clip goes through it augmentation.views times (now {views})"
    if phase.name == "epoch" and config.encoder.weights != "none" and step != "tracking" and _images(config):
        return _for_pretrained(phase, step, config)
    return _for_clips(step, config)


def _for_pretrained(phase: Phase, step: str, config: Config) -> tuple[str, str]:
    if phase.device == "cuda" and config.training.precision == "fp32" and step in ("encoder", "backward"):
        return "training.precision", "training.precision auto computes in half the bits"
    return (
        "encoder.frozen",
        f"with encoder.frozen true each clip is decoded and encoded {config.augmentation.views} times "
        f"(augmentation.views) instead of {config.training.epochs}, and an epoch costs the recurrence alone",
    )


def _for_clips(step: str, config: Config) -> tuple[str, str]:
    """Every clip has to go through: make it cost less."""
    if step == "decode":
        return "data.root", "it grows with the pixels of the files; point data.root at copies of fewer"
    if step == "transform":
        if config.augmentation.brightness or config.augmentation.saturation:
            return "augmentation.saturation", "augmentation.saturation 0 and brightness 0 leave the colours alone"
        return "video.frames", "fewer video.frames are fewer to resize"
    if step == "difference":
        image = "difference" in config.image_streams
        option, size = ("video", config.video.size) if image else ("difference", config.difference.size)
        return f"{option}.size", f"it grows with the square of {option}.size (now {size})"
    if step == "flow":
        return "flow.size", f"it grows with the square of flow.size (now {config.flow.size})"
    if step in ("encoder", "backward", "copy"):
        return _smaller_frames(config)
    return _for_features(step, config)


def _smaller_frames(config: Config) -> tuple[str, str]:
    if config.video.size > SMALL_FRAMES:
        return "video.size", f"it grows with the square of video.size (now {config.video.size})"
    if config.encoder.name not in ("compact", "mobilenet_v3_small"):
        return "encoder.name", "encoder.name mobilenet_v3_small is the quickest of the pretrained encoders"
    return "video.frames", f"it grows with video.frames (now {config.video.frames})"


def _for_features(step: str, config: Config) -> tuple[str, str]:
    if step == "tracking":
        return "tracking.uri", "choose a store that answers faster (tracking.uri), or tracking.enabled false"
    if step in ("read", "copy"):
        if config.encoder.grid > 1 and _images(config):
            return (
                "encoder.grid",
                f"a moment's vector shrinks with the square of encoder.grid (now {config.encoder.grid})",
            )
        return "video.frames", f"it grows with video.frames (now {config.video.frames})"
    if config.training.batch_size < LARGE_BATCH:
        size = config.training.batch_size
        return (
            "training.batch_size",
            f"a larger training.batch_size (now {size}) shares its fixed cost among more clips",
        )
    return "recurrent.hidden", f"it grows with recurrent.hidden (now {config.recurrent.hidden}) and recurrent.layers"


def _for_classification(phase: Phase, step: str) -> tuple[str, str]:
    if step in ("encoder", "copy", "head") and phase.device == "cpu":
        return "--device", "a GPU (--device cuda) takes it off the cores; a model of smaller video.size needs less"
    if step == "flow":
        return "flow.size", "a model trained with a smaller flow.size needs less"
    if step in LOADING:
        return "--workers", "all cores decode (--workers), so more cores, or files of fewer pixels, are the way"
    return "video.size", "a model trained with a smaller video.size needs less"


def _images(config: Config) -> bool:
    """A stream goes through an encoder."""
    return bool(config.image_streams)
