"""Time of 16 uniform frames of a clip: our reader against the two loops that people write by hand.

    .venv/bin/python scripts/bench_sampling.py            the table of docs/benchmarks.md
    .venv/bin/python scripts/bench_sampling.py --quick    under a minute
    .venv/bin/python scripts/bench_sampling.py --json     one flat object of named ratios

read_all: `cv2.VideoCapture(path)`, `read()` every frame, keep 16. grab: the same capture, `grab()` every frame,
`retrieve()` the 16. Both convert to RGB what they keep. The ratios are their time over ours, so above 1 we are faster.
All three run in turns within each repeat, so that what else the machine does falls on each of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.video.reader import probe, read_frames
from pipeline.video.sampling import frames_at, uniform_times
from pipeline.video.writer import write_video

import cv2  # isort: skip  (pipeline.video quiets it before its first import)

WANTED = 16
FILES = {"mpeg4": (".mp4", "mp4v"), "mjpeg": (".avi", "MJPG")}
FULL = ((640, 360, 300), (320, 240, 120))
QUICK = ((320, 240, 120),)
"""Width, height, frames."""

Reader = Callable[[str, NDArray[np.int64]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Row:
    """Median milliseconds of each way to read one file."""

    codec: str
    width: int
    height: int
    frames: int
    milliseconds: dict[str, float]

    def ratio(self, other: str) -> float:
        """Time of another way over ours."""
        return self.milliseconds[other] / self.milliseconds["ours"]


def ours(path: str, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The project's reader."""
    return read_frames(path, indices).frames


def read_all(path: str, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decode and fetch every frame, keep the wanted ones."""
    capture, kept, wanted, number = cv2.VideoCapture(path), [], set(indices.tolist()), 0
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        if number in wanted:
            kept.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        number += 1
    capture.release()
    return np.stack(kept)


def grab(path: str, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decode every frame, fetch the wanted ones."""
    capture, kept, wanted, number = cv2.VideoCapture(path), [], set(indices.tolist()), 0
    while capture.grab():
        if number in wanted:
            kept.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        number += 1
    capture.release()
    return np.stack(kept)


READERS: dict[str, Reader] = {"ours": ours, "read_all": read_all, "grab": grab}


def moving_picture(width: int, height: int, frames: int) -> NDArray[np.uint8]:
    """uint8 (T, H, W, 3): a smooth random picture that drifts, with grain: neither still nor noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width + frames, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(-6, 7, (8, height, width, 1))
    clip = [picture[:, t : t + width].astype(np.int64) + grain[t % len(grain)] for t in range(frames)]
    return np.clip(np.stack(clip), 0, 255).astype(np.uint8)


def measure(path: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of each reader on one file.

    Raises:
        RuntimeError: a reader gave other frames than ours; the comparison would mean nothing.
    """
    times = probe(path).times
    indices = np.unique(frames_at(times, uniform_times(times[0], times[-1], WANTED)))
    expected = ours(path, indices)
    for name, reader in READERS.items():  # also warms the file cache
        if not np.array_equal(reader(path, indices), expected):
            raise RuntimeError(f"{name} gave other frames of {path}")
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    names = list(READERS)
    for repeat in range(repeats):
        for name in names[repeat % 3 :] + names[: repeat % 3]:
            started = time.perf_counter()
            READERS[name](path, indices)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) * 1000 for name, values in seconds.items()}


def bench(quick: bool) -> list[Row]:
    """Render the files and measure each."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height, frames in QUICK if quick else FULL:
            clip = moving_picture(width, height, frames)
            for name, (suffix, codec) in FILES.items():
                path = str(Path(folder) / f"{name}_{width}{suffix}")
                write_video(path, clip, 30.0, codec)
                rows.append(Row(name, width, height, frames, measure(path, 9 if quick else 41)))
    return rows


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """`mpeg4_320x240_read_all_over_ours` and so on."""
    return {
        f"{row.codec}_{row.width}x{row.height}_{other}_over_ours": round(row.ratio(other), 3)
        for row in rows
        for other in READERS
        if other != "ours"
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| file | ours, ms | read_all, ms | grab, ms | read_all / ours | grab / ours |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = row.milliseconds
        cells = [f"{ms[name]:.1f}" for name in READERS] + [f"{row.ratio(name):.2f}" for name in ("read_all", "grab")]
        lines.append(f"| {row.codec} {row.width}x{row.height}, {row.frames} frames | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one file size, fewer repeats; under a minute")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named ratios")
    options = parser.parse_args(arguments)
    rows = bench(options.quick)
    print(json.dumps(ratios(rows)) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
