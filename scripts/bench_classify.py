"""Classifying an archive: against the loop everyone writes, the machine's limit, and other libraries.

    .venv/bin/python scripts/bench_classify.py            the tables of docs/benchmarks.md; some ten minutes
    .venv/bin/python scripts/bench_classify.py --quick    to see that it runs
    .venv/bin/python scripts/bench_classify.py --json     one flat object of named numbers

The clips are H.264, 640x360, 300 frames (MPEG-4 where PyAV is not installed); the model is the default encoder at its
default size with an LSTM, random weights. All parts run in turns in one process, each number is a median.

vs_loop: clips per second of `classify`, over those of opening a file with OpenCV as it opens by default, reading all
frames, sampling, and the plain forward pass of one clip. Same weights, same frames; the script refuses to compare
unless the answers are the same within 1e-4. vs_limit: over one over the sum of bare decoding (a process per core: grab,
retrieve what is wanted, shrink) and of the bare model (folded, in batches of one size, a batch per core), each in
seconds per clip with the machine for itself. Other libraries' models see as many frames of the same clips, decoded by
PyAV: torchvision's r3d_18 and mvit_v2_s, and VideoMAE-base in Hugging Face's pipeline where transformers is installed.
cold_start: seconds of the command for one file, over those of a script that imports torch, loads the same checkpoint
and forwards that file's frames. stream_drift: seconds per moment of the last tenth of a long stream, over the first.
memory_growth: megabytes that the process grows by from the first tenth of an archive of tiny files to its end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from bench_decode import render
from rivals import Rate, decode_limit, forward_limit, loop, peers, plain_answer, timed

from pipeline.config import Config, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.data.clips import choose_frames
from pipeline.model import checkpoint
from pipeline.model.classifier import build_classifier
from pipeline.process import prepare_process
from pipeline.stages import classify as stage
from pipeline.stages.predict import Predictor, load_predictor
from pipeline.video.reader import probe
from pipeline.video.writer import write_video

ROOT = Path(__file__).resolve().parents[1]
SIZE = (640, 360, 300)
DIFFERENT = 4
"""Different files; the others are links to them."""
TOLERANCE = 1e-4

BY_HAND = """
import sys, torch, cv2, numpy as np
from pipeline.model.checkpoint import load
model, card = load(sys.argv[1])
capture, frames = cv2.VideoCapture(sys.argv[2]), []
while (read := capture.read())[0]:
    frames.append(read[1])
side = card.config["video"]["size"]
chosen = np.linspace(0, len(frames) - 1, card.config["video"]["frames"]).astype(int)
clip = np.stack([cv2.cvtColor(cv2.resize(frames[i], (side, side)), cv2.COLOR_BGR2RGB) for i in chosen])
with torch.inference_mode():
    images = torch.from_numpy(clip).permute(0, 3, 1, 2)[None]
    print(card.classes[int(model({"rgb": images}, torch.tensor([len(chosen)])).argmax())])
"""


def save_model(folder: Path, config: Config) -> Predictor:
    """A checkpoint with random weights, read again."""
    torch.manual_seed(0)
    model = build_classifier(config, 5, load=False)
    checkpoint.save(folder, model.state_dict(), checkpoint.Card(to_dict(config), list("abcde")))
    return load_predictor(folder, "cpu")


def write_clips(folder: Path, count: int) -> list[str]:
    """The clips, most of them links."""
    codec, suffix = ("h264", "mp4") if importlib.util.find_spec("av") else ("mpeg4", "avi")
    for number in range(DIFFERENT):
        render(str(folder / f"source{number}.{suffix}"), codec, (SIZE[0], SIZE[1], SIZE[2] - 2 * number))
    paths = [str(folder / f"{number:04d}.{suffix}") for number in range(count)]
    for number, path in enumerate(paths):
        os.link(folder / f"source{number % DIFFERENT}.{suffix}", path)
    return paths


def check_answers(paths: Sequence[str], predictor: Predictor) -> None:
    """Raises RuntimeError where the loop and we do not answer the same: then nothing could be compared."""
    by_loop = loop(paths[:DIFFERENT], predictor, plain_answer(predictor))
    for ours, theirs in zip(predictor.predict(paths[:DIFFERENT]), by_loop, strict=True):
        difference = float(np.abs(np.asarray(ours.probabilities) - np.asarray(theirs)).max())
        if difference > TOLERANCE:
            raise RuntimeError(f"{ours.path}: the answers differ by {difference:.1e}")


def throughput(paths: list[str], predictor: Predictor, repeats: int) -> dict[str, list[Rate]]:
    """Everything that is compared, in turns."""
    times = probe(paths[0]).times
    wanted, video = choose_frames(times, predictor.plan.video), predictor.plan.video
    plain, others = plain_answer(predictor), peers(video.frames)[0]
    found: dict[str, list[Rate]] = {}
    few, warm = paths[: max(4, len(paths) // 6)], min(16, len(paths) // 4)
    for _ in range(repeats):
        found.setdefault("ours", []).append(timed(predictor.predict(paths, -1), warm))
        found.setdefault("loop", []).append(timed(loop(few, predictor, plain), 1))
        bare = decode_limit(paths, wanted, video.size), forward_limit(predictor, len(paths))
        limits = {"limit": 1 / sum(1 / rate for rate in bare), "bare_decoding": bare[0], "bare_model": bare[1]}
        for name, rate in limits.items():
            found.setdefault(name, []).append(Rate(rate, float("nan")))
        for name, answer in others.items():
            found.setdefault(name, []).append(timed(map(answer, few), 1))
    return found


def cold_start(model: Path, path: str, repeats: int) -> float:
    """Of one file, over the same by hand."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    commands = {
        "ours": [sys.executable, "-m", "pipeline", "classify", str(model), path],
        "hand": [sys.executable, "-c", BY_HAND, str(model), path],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            if repeat:  # the first finds the disk's cache cold
                seconds[name].append(time.perf_counter() - began)
    return statistics.median(seconds["ours"]) / statistics.median(seconds["hand"])


def stream_drift(folder: Path, moments: int) -> float:
    """Cost of the last tenth of a stream of synthetic moments, over the first."""
    predictor = save_model(
        folder, Config(video=VideoConfig(streams="flow"), flow=FlowConfig(grid=4), recurrent=RecurrentConfig(hidden=32))
    )
    rng = np.random.default_rng(0)
    inputs = [{"flow": rng.normal(size=32).astype(np.float32)} for _ in range(64)]
    seconds, state = np.empty(moments), None
    for number in range(-200, moments):
        began = time.perf_counter()
        _, state = predictor.step(inputs[number % 64], state)
        if number >= 0:
            seconds[number] = time.perf_counter() - began
    tenth = moments // 10
    return float(seconds[-tenth:].mean() / seconds[:tenth].mean())


def memory_growth(folder: Path, files: int) -> float:
    """Megabytes from a tenth of an archive to its end, the table's writing included."""
    importlib.import_module("pyarrow.parquet")  # a library is no growth
    config = Config(
        video=VideoConfig(frames=4, size=32),
        encoder=EncoderConfig(name="compact", weights="none"),
        recurrent=RecurrentConfig(hidden=8, layers=1),
    )
    predictor, clips = save_model(folder / "tiny", config), folder / "many"
    clips.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    write_video(str(folder / "tiny.avi"), frames, 10.0)
    for number in range(files):
        os.link(folder / "tiny.avi", clips / f"{number:05d}.avi")
    sizes: list[int] = []
    result_row = stage.result_row

    def watched(*given: object) -> dict[str, object]:
        sizes.append(psutil.Process().memory_info().rss)
        return result_row(*given)  # type: ignore[arg-type]

    stage.result_row = watched  # type: ignore[assignment]
    try:
        done = stage.classify(predictor, clips, folder / "many.parquet", keep=False)
    finally:
        stage.result_row = result_row
    if done.ok != files:
        raise RuntimeError(f"{done.failed} of {files} files failed")
    sizes.append(psutil.Process().memory_info().rss)
    return (max(sizes[files // 10 :]) - sizes[files // 10]) / 2**20


def bench(quick: bool) -> dict[str, float]:
    """Measure everything."""
    count, repeats = (8, 1) if quick else (96, 3)
    torch.set_grad_enabled(False)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = Config(encoder=EncoderConfig(weights="none", frozen=True), recurrent=RecurrentConfig(hidden=256))
        predictor, paths = save_model(folder / "model", config), write_clips(folder, count)
        check_answers(paths, predictor)
        for way, rates in throughput(paths, predictor, repeats).items():
            found[f"{way}_clips_per_second"] = statistics.median(rate.clips for rate in rates)
            if not np.isnan(rates[0].cpu):
                found[f"{way}_cpu_seconds"] = statistics.median(rate.cpu for rate in rates)
        found["vs_loop"] = found["ours_clips_per_second"] / found["loop_clips_per_second"]
        found["vs_limit"] = found["ours_clips_per_second"] / found["limit_clips_per_second"]
        found["cold_start"] = cold_start(folder / "model", paths[0], 1 if quick else 5)
        found["stream_drift"] = stream_drift(folder / "stream", 2000 if quick else 100_000)
        found["memory_growth"] = memory_growth(folder, 60 if quick else 10_000)
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def table(found: dict[str, float]) -> str:
    """The rates as Markdown, then the other numbers."""
    lines = ["| 16 frames of 300, 640x360 | clips per second | CPU seconds per clip |", "|---|---|---|"]
    for key in (key for key in found if key.endswith("_clips_per_second")):
        way = key.removesuffix("_clips_per_second")
        cpu = found.get(f"{way}_cpu_seconds")
        lines.append(f"| {way} | {found[key]:.2f} | {'' if cpu is None else f'{cpu:.3f}'} |")
    lines += [f"| {name} | not compared: {why} | |" for name, why in peers(16)[1].items()]
    single = ("vs_loop", "vs_limit", "cold_start", "stream_drift", "memory_growth")
    return "\n".join([*lines, "", *(f"{name} {found[name]}" for name in single)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few clips, once: to see that it runs")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named numbers")
    options = parser.parse_args(arguments)
    prepare_process()  # as the command does
    found = bench(options.quick)
    print(json.dumps(found) if options.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
