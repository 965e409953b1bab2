"""What export.json says: everything that a program without this package needs, in words and numbers."""

from __future__ import annotations

from importlib import metadata
from typing import Any, cast

from pipeline import __version__
from pipeline.config import Config
from pipeline.data.clips import IMAGE_SECONDS
from pipeline.model.classifier import Classifier
from pipeline.model.encoder import Encoder
from pipeline.model.plain.network import PlainHead
from pipeline.model.plain.trace import BATCH, LOGITS, NEXT, VALUES, Graph, Port
from pipeline.video.difference import STILL

FITS = {
    "stretch": "resized to size x size, whatever the frame's shape",
    "crop": "the shorter side resized to size, then the centre cut out",
    "pad": "the longer side resized to size, then black borders around",
}
WRITTEN_BY = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime")

WHAT = {
    "encoder.onnx": "frames to feature vectors; every frame by itself",
    "head.onnx": "feature vectors of whole clips to answers",
    "step.onnx": "one moment after the other: feature vectors and a state to the answer so far and the next state",
    "clip.onnx": "whole clips, as they come out of the preprocessing, to answers",
    "clip.pt2": "clip.onnx as a torch.export program: module()({stream: tensor}, lengths)",
}


def graph_entry(name: str, graph: Graph) -> dict[str, Any]:
    """One file's inputs and outputs."""
    return {"does": WHAT[name], "inputs": _ports(graph.inputs), "outputs": _ports(graph.outputs)}


def state_entries(model: Classifier) -> list[dict[str, Any]]:
    """The tensors of the state, in their order; none where the model reads both ways."""
    return [
        {"name": name, "next": NEXT + name, "dtype": "float32", "shape": [BATCH, *part.shape], "initial": part.start}
        for name, part in PlainHead(model).states.items()
    ]


def answer_entry(model: Classifier, config: Config, classes: list[str], temperature: float) -> dict[str, Any]:
    """What comes out; the logits are as the model gives them, not divided by the temperature yet."""
    found: dict[str, Any] = {"task": config.task, "per_moment": model.per_moment, "classes": classes}
    if model.numeric:
        return found | {"output": VALUES, "meaning": "numbers in the unit of the training targets"}
    return found | {
        "output": LOGITS,
        "temperature": temperature,
        "meaning": "softmax(logits / temperature) over the last axis gives probabilities, in this order of classes",
    }


def preprocessing(model: Classifier, config: Config) -> dict[str, Any]:
    """From a video file to the inputs, per stream."""
    video = config.video
    streams = {name: _stream(config, name) for name in model.streams}
    for name, encoder in model.encoders.items():
        cnn = cast(Encoder, encoder)
        streams[name]["normalisation"] = {
            "mean": cnn.mean.flatten().tolist(), "std": cnn.std.flatten().tolist(),
            "where": "inside the graph: feed 0..255 as they are",
        }  # fmt: skip
    return {
        "moments": {
            "sampling": video.sampling,
            **({"count": video.frames} if video.sampling == "uniform" else {"per_second": video.fps}),
            "rule": _moments(config),
        },
        "frames": {
            "colour": "RGB", "layout": "channels first", "range": [0, 255],
            "fit": video.fit, "fit_means": FITS[video.fit],
            "interpolation": "OpenCV: INTER_AREA where both sides of the frame are at least size, else INTER_LINEAR",
        },
        "streams": streams,
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of what wrote the graphs."""
    return {"video-lstm": __version__} | {name: metadata.version(name) for name in WRITTEN_BY}


def _ports(ports: tuple[Port, ...]) -> list[dict[str, Any]]:
    return [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in ports]


def _moments(config: Config) -> str:
    last = "the frame shown at a moment is the last one whose timestamp is at most 1 ms after it; a frame is taken once"
    if config.video.sampling == "rate":
        return f"first timestamp + k / {config.video.fps:g} seconds for k = 0, 1, ... up to the last timestamp; {last}"
    count = config.video.frames
    return (
        f"[first timestamp, last timestamp] is cut into {count} equal parts, the middle of each is a moment; {last}; "
        f"a clip of at most {count} frames gives each of them once"
    )


def _stream(config: Config, name: str) -> dict[str, Any]:
    size = config.video.size
    image = {"dtype": "uint8", "shape": [3, size, size], "size": size}
    if name == "rgb":
        return image | {"is": "the frames at the moments"}
    section = config.difference if name == "difference" else config.flow
    pair = (
        "the frame of a moment and the one a moment earlier"
        if section.interval == 0
        else f"the frame of a moment and the one {section.interval:g} s earlier, at least one frame; a clip's first "
        "frame is paired with itself"
    )
    grid = {"dtype": "float32", "shape": [2 * section.grid**2], "size": section.size, "grid": section.grid}
    if name == "difference":
        if section.form == "image":
            return image | {"is": f"{pair}: later minus earlier, plus {STILL}, clipped to 0..255"}
        return grid | {
            "is": f"{pair}, fitted to size, grey: what became brighter and what became darker, each 0..1 of the grey "
            "range, averaged over grid x grid cells; all cells of brighter, then all of darker"
        }
    flow = f"{pair}, fitted to size, grey: OpenCV's DIS flow (preset MEDIUM) in frame widths and heights per second"
    if section.form == "image":
        return image | {
            "is": f"{flow}, times {IMAGE_SECONDS:g} s, as an image: see flow_image in pipeline/video/flow.py",
            "flow_size": section.size,
        }
    return grid | {"is": f"{flow}, averaged over grid x grid cells; all cells of x, then all of y"}
