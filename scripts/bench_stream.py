"""What a stream costs per frame, whether that stays so, and how long an answer takes.

    .venv/bin/python scripts/bench_stream.py            the table of docs/streams.md; 5 to 10 minutes
    .venv/bin/python scripts/bench_stream.py --quick    3000 frames and 5 seconds of video
    .venv/bin/python scripts/bench_stream.py --json     one flat object

First the work that `video-lstm watch` does for a frame (moments, encoder, recurrence, gates, events, the page's
history) on frames in memory, `--frames` of them: `stream_drift` is the mean time of the last tenth over that of the
first, 1 means that nothing grows; `rss_growth_mb` is what the process has grown by from the first tenth to the end.
Then `video-lstm watch` itself on a video of 25 frames per second played in real time, once and four times at once:
`latency_p50_ms` and `latency_p99_ms` are the times from a decoded frame to its answer. The model is that of
configs/demo.yaml, untrained: weights change no time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch

from pipeline.config import Config, EncoderConfig, EventsConfig, RecurrentConfig, VideoConfig, WatchConfig, to_dict
from pipeline.data.moments import Moments, streaming
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.predict import Predictor
from pipeline.stages.watch.board import Board
from pipeline.stages.watch.engine import TorchSteps
from pipeline.stages.watch.mailbox import Arrival
from pipeline.stages.watch.run import watch
from pipeline.stages.watch.stepper import Reset, Stepper
from pipeline.stages.watch.tracker import Tracker
from pipeline.video.writer import write_video

CLASSES = ["left", "right", "up", "down", "clockwise", "counter_clockwise", "grow", "shrink"]
FPS = 25.0
WARM = 200
"""Frames before the first that is timed, at most: caches and allocators fill."""


def demo_predictor() -> Predictor:
    """The model of configs/demo.yaml with random weights."""
    config = Config(
        video=VideoConfig(frames=12, size=64),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False, grid=4),
        recurrent=RecurrentConfig(hidden=128, layers=2),
    )
    torch.manual_seed(0)
    model = build_classifier(config, len(CLASSES))
    return Predictor(model, Card(to_dict(config), CLASSES), torch.device("cpu"), "")


def drift(predictor: Predictor, frames: int) -> dict[str, float]:
    """Seconds per frame over a long stream, and the memory of the process."""
    pictures = np.random.default_rng(0).integers(0, 256, (50, 120, 160, 3), dtype=np.uint8)
    moments = Moments(streaming(predictor.plan, FPS))
    stepper = Stepper(TorchSteps(predictor), 1, Reset("window", 12), gates=True)
    tracker, board = Tracker("s", CLASSES, EventsConfig(on=0.2, off=0.1), [], 0.0, None), Board("m", CLASSES, ["s"])
    seconds, process = np.zeros(frames), psutil.Process()
    warm, tenth, early = min(WARM, frames // 10), max(1, frames // 10), 0
    for number in range(-warm, frames):
        started = time.perf_counter()
        for moment in moments.push(pictures[number % 50], (number + warm) / FPS):
            answer = stepper.step({0: moment.inputs})[0]
            arrival = Arrival(moment, moment.time, started)
            for line in tracker.answer(arrival, answer):
                board.event(line)
            board.answer(0, arrival, answer, [])
        if number >= 0:
            seconds[number] = time.perf_counter() - started
        if number == tenth:
            early = process.memory_info().rss
    first, last = seconds[:tenth], seconds[-tenth:]
    return {
        "frames": frames,
        "frames_per_second": float(1 / seconds.mean()),
        "ms_per_frame_first_tenth": float(first.mean() * 1000),
        "ms_per_frame_last_tenth": float(last.mean() * 1000),
        "stream_drift": float(last.mean() / first.mean()),
        "stream_drift_median": float(np.median(last) / np.median(first)),
        "rss_growth_mb": (process.memory_info().rss - early) / 1e6,
    }


def latencies(predictor: Predictor, seconds: float) -> dict[str, float | int | None]:
    """p50 and p99 of one source and of four at once, played in real time."""
    found: dict[str, float | int | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "video.mp4")
        pictures = np.random.default_rng(0).integers(0, 256, (25, 30, 40, 3), dtype=np.uint8)
        pictures = np.repeat(np.repeat(pictures, 8, axis=1), 8, axis=2)
        write_video(path, pictures[np.arange(round(seconds * FPS)) % 25], FPS)
        for sources in (1, 4):
            config = WatchConfig(rate=FPS, realtime=True, reset="window", window=12)
            summary = watch(predictor, [path] * sources, config, EventsConfig(), None, lambda line: None)
            name = "latency" if sources == 1 else f"latency_{sources}_sources"
            found |= {f"{name}_p50_ms": summary["latency_p50_ms"], f"{name}_p99_ms": summary["latency_p99_ms"]}
            found[f"dropped_{sources}"] = sum(row["dropped"] for row in summary["sources"])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="of the long stream")
    parser.add_argument("--seconds", type=float, default=30.0, help="of video played in real time")
    parser.add_argument("--quick", action="store_true", help="3000 frames, 5 seconds")
    parser.add_argument("--json", action="store_true", help="one flat object on stdout")
    options = parser.parse_args(arguments)
    if options.quick:
        options.frames, options.seconds = 3000, 5.0
    predictor = demo_predictor()
    result = drift(predictor, options.frames) | latencies(predictor, options.seconds)
    if options.json:
        print(json.dumps(result))
        return
    print("| frames | per second | first tenth | last tenth | drift | grown by | p50, p99 | the same of 4 at once |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {result['frames']} | {result['frames_per_second']:.0f} | {result['ms_per_frame_first_tenth']:.2f} ms "
        f"| {result['ms_per_frame_last_tenth']:.2f} ms | {result['stream_drift']:.3f} "
        f"| {result['rss_growth_mb']:.1f} MB | {result['latency_p50_ms']:.1f}, {result['latency_p99_ms']:.1f} ms "
        f"| {result['latency_4_sources_p50_ms']:.1f}, {result['latency_4_sources_p99_ms']:.1f} ms |"
    )


if __name__ == "__main__":
    main()
