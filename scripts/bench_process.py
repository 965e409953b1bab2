"""What the settings of `pipeline/process.py` bring: the same work in processes with them and without.

    .venv/bin/python scripts/bench_process.py            the table of docs/benchmarks.md; some minutes
    .venv/bin/python scripts/bench_process.py --quick    the encoder alone, once; under a minute
    .venv/bin/python scripts/bench_process.py --json     one flat object of named ratios

As it is the whole process that changes, each measurement is a process of its own; the ways take turns, and each number
is the median over turns of a process's median. `without`: PyTorch as it is by default. Ratios: its time, over others'.

encode   EfficientNet-Lite0 in inference on the 16 frames of a clip, 224 px: what extraction and `classify` do
step     a training step of MobileNetV3-Small at 112 px, 16 clips of 12 frames each
lengths  the same where each batch has another number of frames: with kept memory alone, and with kept kernels too
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from pipeline.config import Config, EncoderConfig, VideoConfig
from pipeline.data.batches import Batch
from pipeline.data.clips import ClipInputs
from pipeline.model.classifier import build_classifier
from pipeline.process import keep_freed_memory, prepare_process
from pipeline.stages.predict import encode_clip
from pipeline.stages.step import TrainStep

WAYS: dict[str, Callable[[], object]] = {
    "without": lambda: None,
    "memory": keep_freed_memory,
    "with": prepare_process,
}
TURNS = 3
CPU = torch.device("cpu")
CLIPS, FRAMES = 16, 12


def encode() -> Callable[[int], object]:
    """A clip to features."""
    config = Config(name="encode", video=VideoConfig(size=224), encoder=EncoderConfig(weights="none"))
    model = build_classifier(config, 5, load=False).eval()
    frames = np.random.default_rng(0).integers(0, 256, (16, 3, 224, 224), dtype=np.uint8)
    clip = ClipInputs({"rgb": frames}, np.zeros(16))
    return lambda _: encode_clip(model, clip, CPU)


def train(lengths: bool) -> Callable[[int], object]:
    """An update; with `lengths` the first clip is shorter by another number of frames each time."""
    encoder = EncoderConfig(name="mobilenet_v3_small", weights="none", frozen=False)
    config = Config(name="step", video=VideoConfig(frames=FRAMES, size=112), encoder=encoder)
    step = TrainStep(build_classifier(config, 5, load=False), config, CPU)
    step.begin(0)
    frames = torch.randint(0, 256, (CLIPS, FRAMES, 3, 112, 112), dtype=torch.uint8)
    targets, times = torch.arange(CLIPS) % 5, torch.zeros(CLIPS, FRAMES, dtype=torch.float64)

    def update(number: int) -> object:
        real = torch.full((CLIPS,), FRAMES)
        real[0] -= number % FRAMES if lengths else 0
        return step.train([Batch({"rgb": frames}, real, targets, times)])

    return update


WORK: dict[str, tuple[Callable[[], Callable[[int], object]], tuple[str, ...]]] = {
    "encode": (encode, ("without", "with")),
    "step": (lambda: train(False), ("without", "with")),
    "lengths": (lambda: train(True), ("without", "memory", "with")),
}
"""What is done, and in which ways."""


def measure(work: str, way: str) -> dict[str, float]:
    """In this process: milliseconds and page faults of one time, medians, and the process's peak in MB."""
    WAYS[way]()
    once = WORK[work][0]()
    for number in range(FRAMES):  # each length once: what can be kept, is
        once(number)
    milliseconds, faults = [], []
    for number in range(FRAMES):
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        once(number)
        milliseconds.append(1000 * (time.perf_counter() - began))
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms": statistics.median(milliseconds), "faults": statistics.median(faults), "peak": peak}


def in_a_process(work: str, way: str) -> dict[str, float]:
    """`measure` in a new one, whose environment says nothing of these settings."""
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "ONEDNN" not in name}
    command = [sys.executable, __file__, "--child", work, way]
    done = subprocess.run(command, env=plain, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def bench(quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Work -> way -> medians."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for work, (_, ways) in list(WORK.items())[: 1 if quick else None]:
        turns = [{way: in_a_process(work, way) for way in ways} for _ in range(1 if quick else TURNS)]
        found[work] = {
            way: {name: statistics.median(turn[way][name] for turn in turns) for name in turns[0][way]} for way in ways
        }
    return found


def ratios(found: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """How many times as long each takes without the settings."""
    return {
        work if way == "with" else f"{work}_{way}": round(ways["without"]["ms"] / one["ms"], 4)
        for work, ways in found.items()
        for way, one in ways.items()
        if way != "without"
    }


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """As Markdown."""
    lines = ["| | | ms | page faults | peak, MB | ratio |", "|---|---|---|---|---|---|"]
    for work, ways in found.items():
        for way, one in ways.items():
            ratio = ways["without"]["ms"] / one["ms"]
            lines.append(
                f"| {work} | {way} | {one['ms']:.1f} | {one['faults']:,.0f} | {one['peak']:,.0f} | {ratio:.2f} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the encoder alone, once; under a minute")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named ratios")
    parser.add_argument("--child", nargs=2, metavar=("WORK", "WAY"), help="one measurement, in this process")
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(measure(*options.child)))
        return 0
    found = bench(options.quick)
    print(json.dumps(ratios(found)) if options.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
