"""Describe: what a model does to a clip, step by step, and what each step costs; nothing is trained or decoded."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import cast

from pipeline.config import Config, TrackingConfig
from pipeline.data import layouts
from pipeline.model.anatomy import Step, branch_steps, encoder_steps
from pipeline.model.branch import Branch
from pipeline.model.checkpoint import config_of
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.encoder import Encoder
from pipeline.model.matrices import Matrix, matrices
from pipeline.stages.ingest import classes_of
from pipeline.stages.models import load_model

ASSUMED_CLASSES = 2
"""Classes of a configuration whose data is not there."""


@dataclass(frozen=True)
class Block:
    """The way of one stream, or what comes after the streams.

    Attributes:
        name: of the stream; fusion.
        steps: in their order.
        matrices: the weights of its recurrent layers.
    """

    name: str
    steps: list[Step]
    matrices: list[Matrix]


@dataclass(frozen=True)
class Described:
    """A model, for one clip of `moments` moments.

    Attributes:
        name: the configuration's name.
        task: what is answered.
        outputs: numbers per answer: the classes, or 1.
        outputs_from: where the number of classes is from.
        moments: T.
        blocks: the streams in their order, then the fusion where there are two.
        parameters, trained, multiply_adds, activations, weights: sums over all steps, see `Step`.
    """

    name: str
    task: str
    outputs: int
    outputs_from: str
    moments: int
    blocks: list[Block]
    parameters: int
    trained: int
    multiply_adds: int
    activations: int
    weights: int


def describe_config(config: Config, classes: int | None = None) -> Described:
    """Describe the model that a configuration stands for; its pretrained weights are not needed.

    Args:
        config: everything.
        classes: how many; None: as many as `data.root` has labels, `ASSUMED_CLASSES` where it is unset or not there.

    Raises:
        ConfigError: the model cannot be built.
        DataError: `data.root` is there and cannot be read.
    """
    count, origin = _classes(config, classes)
    return describe(config, build_classifier(config, count, load=False), count, origin)


def describe_model(name: str, uri: str | None = None) -> Described:
    """Describe a trained model.

    Args:
        name: see `stages.models.load_model`.
        uri: MLflow store of `runs:/` and `models:/` addresses.

    Raises:
        CheckpointError: nothing there, or damaged.
        TrackingError: the store does not have it.
    """
    predictor = load_model(name, "cpu", TrackingConfig(uri=uri))
    return describe(config_of(predictor.card), predictor.model, len(predictor.card.classes), "of the model")


def describe(config: Config, model: Classifier, classes: int, origin: str) -> Described:
    """Describe a model that was built from a configuration."""
    moments = config.video.frames
    blocks = []
    for name in model.streams:
        branch = cast(Branch, model.branches[name])
        steps = _input_steps(config, name)
        if name in model.encoders:
            steps += encoder_steps(cast(Encoder, model.encoders[name]), moments, config.video.size)
        blocks.append(Block(name, [*steps, *branch_steps(branch, moments)], matrices(branch)))
    outputs = 1 if config.numeric else classes
    if len(blocks) > 1:
        shape = blocks[0].steps[-1].shape
        blocks.append(Block("fusion", [Step("mean of the streams", shape, activations=4 * outputs)], []))
    steps = [step for block in blocks for step in block.steps]
    return Described(
        config.name,
        config.task,
        outputs,
        "" if config.numeric else origin,
        moments,
        blocks,
        sum(step.parameters for step in steps),
        sum(step.trained for step in steps),
        sum(step.multiply_adds or 0 for step in steps),
        sum(step.activations for step in steps),
        sum(step.weights for step in steps),
    )


def _input_steps(config: Config, stream: str) -> list[Step]:
    """From the file to what the model reads; nothing here is learned, and its work is not counted."""
    moments, size = config.video.frames, config.video.size
    images = (moments, 3, size, size)
    if stream == "rgb":
        read = Step(f"decode {moments} frames", (moments, "H", "W", 3), "uint8", multiply_adds=None)
        return [read, _uncounted(f"{config.video.fit} to {size} px", images, "uint8")]
    pairs = Step(f"decode {moments} frame pairs", (moments, 2, "H", "W", 3), "uint8", multiply_adds=None)
    if stream == "difference":
        change = config.difference
        if change.form == "image":
            return [pairs, _uncounted("difference as an image", images, "uint8")]
        named = f"brighter and darker at {change.size} px, mean over {change.grid} x {change.grid} cells"
        return [pairs, _uncounted(named, (moments, 2 * change.grid**2), "float32")]
    flow = config.flow
    steps = [
        pairs,
        _uncounted(f"DIS flow at {flow.size} px", (moments, flow.size, flow.size, 2), "float32"),
    ]
    if flow.form == "image":
        return [*steps, _uncounted("flow as an image", images, "uint8")]
    cells = f"mean over {flow.grid} x {flow.grid} cells"
    return [*steps, _uncounted(cells, (moments, 2 * flow.grid**2), "float32")]


def _uncounted(name: str, shape: tuple[int, ...], dtype: str) -> Step:
    size = math.prod(shape) * (4 if dtype == "float32" else 1)
    return Step(name, shape, dtype, multiply_adds=None, activations=size)


def _classes(config: Config, given: int | None) -> tuple[int, str]:
    """How many classes, and where that is from. Folders and lists are read, no clip is opened."""
    if config.numeric:
        return 1, ""
    if given is not None:
        return given, "from --classes"
    root = config.data.root
    if root is None or not os.path.exists(os.path.expanduser(root)):
        missing = "data.root is not set" if root is None else f"data.root {root} is not there"
        return ASSUMED_CLASSES, f"assumed: {missing}; --classes sets it"
    return len(classes_of(layouts.discover(config.data, config.task).entries)), f"from {root}"
