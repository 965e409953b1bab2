"""From modules to files: traced by `torch.export` with batch and length left free, written as ONNX or as they are."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.model.classifier import Classifier
from pipeline.model.plain.network import PlainClip, PlainEncoders, PlainHead, PlainStep, size_of

OPSET = 18
"""Of ONNX: read by ONNX Runtime from 1.14 (2023) on."""

BATCH, TIME, FRAMES = "batch", "time", "frames"
"""Names of the axes that are free."""

LOGITS = "logits"
VALUES = "values"
LENGTHS = "lengths"
NEXT = "next."
"""What stands before the name of a state's tensor where it comes out."""
FEATURES = ".features"
"""What stands behind a stream's name where its vectors come out of the encoders, and go into a head or a step."""


@dataclass(frozen=True)
class Port:
    """One input or output of a graph; a free axis is a name, a fixed one a number."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """A traced module.

    Attributes:
        program: what was traced.
        inputs, outputs: in the order in which the program takes and gives them, flattened.
    """

    program: torch.export.ExportedProgram
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def trace_encoders(model: Classifier, size: int) -> Graph:
    """All encoders: frames (frames, 3, S, S) uint8 per image stream to vectors (frames, D)."""
    inputs = [Port(name, "uint8", (FRAMES, 3, size, size)) for name in model.encoders]
    outputs = [Port(name + FEATURES, "float32", (FRAMES, size_of(model, name))) for name in model.encoders]
    frames = {name: torch.zeros(3, 3, size, size, dtype=torch.uint8) for name in model.encoders}
    free = {name: {0: FRAMES} for name in model.encoders}
    return Graph(_trace(PlainEncoders(model, size), (frames,), (free,)), tuple(inputs), tuple(outputs))


def trace_head(model: Classifier, outputs: int) -> Graph:
    """The head on the features of whole clips: (batch, time, D) per stream and lengths to the answer."""
    sizes = {name: size_of(model, name) for name in model.streams}
    inputs = [Port(name + FEATURES, "float32", (BATCH, TIME, size)) for name, size in sizes.items()]
    given = {name: torch.zeros(2, 3, size) for name, size in sizes.items()}
    free = {name: {0: BATCH, 1: TIME} for name in model.streams}
    return _of_clips(model, PlainHead(model), inputs, given, free, outputs)


def trace_clip(model: Classifier, size: int, outputs: int) -> Graph:
    """The whole clip: frames or features per stream, as they come out of the file, and lengths to the answer."""
    inputs, given = [], {}
    for name in model.streams:
        image = name in model.encoders
        shape = (3, size, size) if image else (size_of(model, name),)
        inputs.append(Port(name, "uint8" if image else "float32", (BATCH, TIME, *shape)))
        given[name] = torch.zeros(2, 3, *shape, dtype=torch.uint8 if image else torch.float32)
    encoders = PlainEncoders(model, size) if len(model.encoders) else None
    free = {name: {0: BATCH, 1: TIME} for name in model.streams}
    return _of_clips(model, PlainClip(PlainHead(model), encoders), inputs, given, free, outputs)


def trace_step(model: Classifier, outputs: int) -> Graph:
    """One moment: features (batch, D) per stream and the state to the answer and the new state."""
    head = PlainHead(model)
    inputs = [Port(name + FEATURES, "float32", (BATCH, size_of(model, name))) for name in model.streams]
    state = [Port(name, "float32", (BATCH, *part.shape)) for name, part in head.states.items()]
    features = {name: torch.zeros(2, size_of(model, name)) for name in model.streams}
    free = ({name: {0: BATCH} for name in model.streams}, {name: {0: BATCH} for name in head.states})
    program = _trace(PlainStep(head), (features, head.start(2)), free)
    answer = Port(VALUES if model.numeric else LOGITS, "float32", (BATCH, outputs))
    after = [Port(NEXT + port.name, port.dtype, port.shape) for port in state]
    return Graph(program, (*inputs, *state), (answer, *after))


def _of_clips(
    model: Classifier, module: nn.Module, inputs: Sequence[Port], given: Any, free: Any, outputs: int
) -> Graph:
    lengths = torch.tensor([3, 2])
    program = _trace(module, (given, lengths), (free, {0: BATCH}))
    shape = (BATCH, TIME, outputs) if model.per_moment else (BATCH, outputs)
    answer = Port(VALUES if model.numeric else LOGITS, "float32", shape)
    return Graph(program, (*inputs, Port(LENGTHS, "int64", (BATCH,))), (answer,))


def _trace(module: nn.Module, arguments: tuple[Any, ...], free: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """`free`: as the arguments, axis -> the name of what may have any size."""
    with quiet(), torch.no_grad():
        program = torch.export.export(module.eval().requires_grad_(False), arguments, dynamic_shapes=_dims(free))
    _forget_origins(program.graph_module)
    # They would be written as a pickle, and nobody needs zeros.
    program.example_inputs = None  # type: ignore[assignment]
    return program


def _dims(free: Any) -> Any:
    """Axis names to what `torch.export` takes; one object for each name, so that axes of one name are equal."""
    made: dict[str, Any] = {}

    def convert(node: Any) -> Any:
        if isinstance(node, str):
            return made.setdefault(node, torch.export.Dim(node))
        if isinstance(node, dict):
            return {key: convert(value) for key, value in node.items()}
        return tuple(convert(value) for value in node)

    return convert(free)


def _forget_origins(module: torch.fx.GraphModule) -> None:
    """Stack traces name the files of the machine that exported: of no use elsewhere, and nobody's business."""
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "custom"):
                    node.meta.pop(key, None)


def write_program(graph: Graph, path: Path) -> None:
    """The program as PyTorch's .pt2: a zip of JSON and raw tensors, without a pickle inside."""
    with quiet():
        torch.export.save(graph.program, path)


def write_onnx(graph: Graph, path: Path) -> None:
    """The graph as ONNX, weights inside, checked by ONNX's own checker.

    Raises:
        ValueError: it takes more than 2 GB, which one ONNX file cannot hold.
    """
    import onnx

    with quiet(), torch.no_grad():
        made = torch.onnx.export(
            graph.program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            external_data=False,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    _tidy(model.graph)
    _name_axes(model.graph.input, graph.inputs)
    _name_axes(model.graph.output, graph.outputs)
    model.producer_name, model.doc_string = "video-lstm", ""
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _tidy(graph: Any) -> None:
    """Without what only a debugger of the exporter reads: shapes within, origins of nodes."""
    graph.ClearField("value_info")
    graph.doc_string = ""
    del graph.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _tidy(attribute.g)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def _name_axes(values: Any, ports: Sequence[Port]) -> None:
    assert [value.name for value in values] == [port.name for port in ports]
    for value, port in zip(values, ports, strict=True):
        axes = value.type.tensor_type.shape.dim
        for axis, size in zip(axes, port.shape, strict=True):
            if isinstance(size, str):
                axis.dim_param = size
            else:
                axis.dim_value = size


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters print their progress, and warn of what is of no interest to a user: nothing of it is shown."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def run_program(graph: Graph, *arguments: Mapping[str, Tensor] | Tensor) -> Any:
    """What the traced program answers, in PyTorch."""
    with torch.inference_mode():
        return graph.program.module()(*arguments)
