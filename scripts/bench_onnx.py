#!/usr/bin/env python
"""How long ONNX Runtime takes for what PyTorch does: the encoder on a clip's frames, the head on its features, a step.

Both compute one model with random weights, with the same number of threads, in turns. Ratios above 1: ONNX Runtime is
quicker. Needs the extra [onnx]. It takes about two minutes, most of it the export.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.export.engine import OnnxEngine
from pipeline.stages.export.run import export
from pipeline.stages.predict import Predictor

CLASSES = 8
PARTS = ("encoder", "head", "step")


def predictor(encoder: str, kind: str, size: int, frames: int) -> Predictor:
    """A model with random weights; the recurrence as configured by default."""
    torch.manual_seed(0)
    config = Config(
        video=VideoConfig(size=size, frames=frames),
        encoder=EncoderConfig(name=encoder, weights="none"),
        recurrent=RecurrentConfig(kind=kind),  # type: ignore[arg-type]
    )
    names = [f"class {number}" for number in range(CLASSES)]
    model = build_classifier(config, CLASSES, load=False)
    return Predictor(model, Card(to_dict(config), names), torch.device("cpu"), "0" * 64)


def ways(one: Predictor, engine: OnnxEngine, frames: int, size: int) -> dict[str, tuple[Callable[[], Any], ...]]:
    """Part -> what PyTorch does for it, and ONNX Runtime."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (frames, 3, size, size), dtype=np.uint8)
    tensor, lengths = torch.from_numpy(images), torch.tensor([frames])
    features = engine.encode({"rgb": images})
    whole = {name: torch.from_numpy(x)[None] for name, x in features.items()}
    moment = {name: x[:1] for name, x in features.items()}
    tensors = {name: torch.from_numpy(x) for name, x in moment.items()}
    own_state, state = one.model.step(tensors)[1], engine.step(moment)[1]
    return {
        "encoder": (lambda: one.model.encoders["rgb"](tensor), lambda: engine.encode({"rgb": images})),
        "head": (lambda: one.model.head(whole, lengths), lambda: engine.head([features])),
        "step": (lambda: one.model.step(tensors, own_state), lambda: engine.step(moment, state)),
    }


def measure(pair: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median milliseconds of each, in turns."""
    seconds: list[list[float]] = [[] for _ in pair]
    for repeat in range(repeats + 2):
        for place, call in enumerate(pair):
            started = time.perf_counter()
            call()
            if repeat >= 2:
                seconds[place].append(time.perf_counter() - started)
    return [statistics.median(values) * 1000 for values in seconds]


@torch.inference_mode()
def bench(encoder: str, kind: str, size: int, frames: int, repeats: int) -> dict[str, list[float]]:
    """Part -> milliseconds of PyTorch and of ONNX Runtime."""
    one = predictor(encoder, kind, size, frames)
    with tempfile.TemporaryDirectory() as folder:
        with torch.inference_mode(False):
            export(one, Path(folder) / "export", clips=[], engine_alone=True)
        engine = OnnxEngine(Path(folder) / "export", threads=torch.get_num_threads())
        return {part: measure(pair, repeats) for part, pair in ways(one, engine, frames, size).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoder", default=EncoderConfig().name)
    parser.add_argument("--kind", default=RecurrentConfig().kind)
    parser.add_argument("--size", type=int, default=VideoConfig().size)
    parser.add_argument("--frames", type=int, default=VideoConfig().frames)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="print PyTorch's time over ONNX Runtime's, by part")
    options = parser.parse_args(arguments)
    found = bench(options.encoder, options.kind, options.size, options.frames, options.repeats)
    if options.json:
        print(json.dumps({part: round(found[part][0] / found[part][1], 3) for part in PARTS}))
        return 0
    print(f"| {options.encoder}, {options.size} px, {options.kind} | PyTorch, ms | ONNX Runtime, ms | ratio |")
    print("|---|---|---|---|")
    names = {
        "encoder": f"encoder, {options.frames} frames",
        "head": f"head, {options.frames} moments",
        "step": "a step",
    }
    for part, (torch_ms, onnx_ms) in found.items():
        print(f"| {names[part]} | {torch_ms:.2f} | {onnx_ms:.2f} | {torch_ms / onnx_ms:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
