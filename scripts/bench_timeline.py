"""How fast `timeline` reads a recording, and whether its memory grows with the length.

    .venv/bin/python scripts/bench_timeline.py            the table of docs/recordings.md; about 5 minutes
    .venv/bin/python scripts/bench_timeline.py --quick    recordings of 5 and 20 seconds
    .venv/bin/python scripts/bench_timeline.py --json     one flat object

A recording of some minutes and one of hours, 25 frames per second of a moving square in 320x240, each labelled in a
process of its own. `speed` is seconds of video per second of the whole run, `rss_mb` the most memory that the process
had; `rss_growth_mb` is how much more the long recording took. The model is that of configs/demo.yaml, untrained:
weights change no time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.config import Config, EncoderConfig, EventsConfig, RecurrentConfig, TimelineConfig, VideoConfig, to_dict
from pipeline.video.writer import video_writer

CLASSES = ["left", "right", "up", "down", "clockwise", "counter_clockwise", "grow", "shrink"]
FPS, RATE = 25.0, 8.0


def record(path: Path, seconds: float) -> None:
    """A square that goes round over a grey picture."""
    background = np.full((240, 320, 3), 90, np.uint8)
    with video_writer(str(path), 320, 240, FPS) as write:
        for place in range(round(seconds * FPS)):
            frame, angle = background.copy(), place / FPS
            x, y = round(140 + 100 * np.cos(angle)), round(100 + 80 * np.sin(angle))
            frame[y : y + 40, x : x + 40] = (220, 60, 40)
            write(frame)


def label(path: str, out: str, answers: multiprocessing.SimpleQueue[dict[str, float]]) -> None:
    """In a new process: seconds, moments, peak memory."""
    import torch

    from pipeline.model.checkpoint import Card
    from pipeline.model.classifier import build_classifier
    from pipeline.stages.predict import Predictor
    from pipeline.stages.timeline.run import timeline

    config = Config(
        video=VideoConfig(frames=12, size=64),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False, grid=4),
        recurrent=RecurrentConfig(hidden=128, layers=2),
    )
    torch.manual_seed(0)
    card = Card(to_dict(config), CLASSES)
    predictor = Predictor(build_classifier(config, len(CLASSES)), card, torch.device("cpu"), "")
    start = time.perf_counter()
    row = timeline(predictor, [path], Path(out), TimelineConfig(rate=RATE), EventsConfig(on=0.2, off=0.1))["rows"][0]
    seconds = time.perf_counter() - start
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
    answers.put({"speed": row["duration"] / seconds, "moments": row["moments"], "rss_mb": peak})


def measure(lengths: Sequence[float]) -> dict[str, float]:
    """Both recordings, shortest first."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds in zip(("short", "long"), lengths, strict=True):
            path = Path(folder) / f"{name}.mp4"
            record(path, seconds)
            answers: multiprocessing.SimpleQueue[dict[str, float]] = context.SimpleQueue()
            process = context.Process(target=label, args=(str(path), folder, answers))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"labelling ended with {process.exitcode}")
            found |= {f"{name}_seconds": seconds} | {f"{name}_{key}": value for key, value in answers.get().items()}
            path.unlink()
    return found | {"rss_growth_mb": found["long_rss_mb"] - found["short_rss_mb"]}


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="recordings of 5 and 20 seconds")
    parser.add_argument("--json", action="store_true", help="one flat object")
    options = parser.parse_args(given)
    found = measure((5.0, 20.0) if options.quick else (300.0, 7200.0))
    if options.json:
        print(json.dumps({key: round(value, 3) for key, value in found.items()}))
        return
    print("| recording | times as fast as it plays | peak memory |\n|---|---|---|")
    for name in ("short", "long"):
        print(f"| {found[f'{name}_seconds']:g} s | {found[f'{name}_speed']:.1f} | {found[f'{name}_rss_mb']:.0f} MB |")


if __name__ == "__main__":
    main()
