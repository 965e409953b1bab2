"""Our reader side by side with the loops people write by hand, with PyAV and with torchcodec.

    .venv/bin/python scripts/bench_decode.py            the tables of docs/benchmarks.md
    .venv/bin/python scripts/bench_decode.py --quick    about a minute
    .venv/bin/python scripts/bench_decode.py --json     one flat object of named ratios

Everything is read from files that are rendered first, in one process, all readers in turns within each repeat, so that
what else the machine does falls on each of them; each number is a median. Above 1, ours is the faster.

read_all        our frames per second over those of a bare `cv2.VideoCapture.read()` loop, 300 frames
sample_short    16 uniform frames of 300: time of grab-all-retrieve-16 over ours
sample_long     16 uniform frames of a 10-minute file: time of grabbing through it over ours
peers_short     16 uniform frames of 300: time of the faster of PyAV and torchcodec over ours
ingest_scaling  cataloguing with a process per core against one process (files per second)
encoder_folded  the default encoder's plain call over ours, see scripts/bench_encoder.py
Each of the first four is the worst over the codecs; the table has them all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data import catalog
from pipeline.data.layouts import Entry
from pipeline.process import usable_cores
from pipeline.video.reader import probe, read_frames
from pipeline.video.sampling import frames_at, uniform_times
from pipeline.video.writer import write_video

import cv2  # isort: skip  (pipeline.video quiets it before its first import)

WANTED = 16
CODECS = {"h264": ".mp4", "mpeg4": ".mp4", "mjpeg": ".avi"}
SHORT = (640, 360, 300)
LONG = (320, 240, 15_000)
FPS = 25.0
TOLERANCE = 12.0
"""Largest mean difference of pixel values (0..255) between decoders; a neighbouring frame differs by more."""

Frames = NDArray[np.uint8]
Reader = Callable[[str, NDArray[np.int64], NDArray[np.float64]], Frames]


def ours(path: str, indices: NDArray[np.int64], times: NDArray[np.float64]) -> Frames:
    """The project's reader, as `load_clip` calls it."""
    return read_frames(path, indices, times[indices]).frames


def bare_read(path: str, indices: NDArray[np.int64], times: NDArray[np.float64]) -> Frames:
    """`read()` every frame; convert and keep the wanted ones."""
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


def grab(path: str, indices: NDArray[np.int64], times: NDArray[np.float64]) -> Frames:
    """`grab()` every frame up to the last wanted one, `retrieve()` and convert the wanted ones."""
    capture, kept, wanted = cv2.VideoCapture(path), [], set(indices.tolist())
    for number in range(int(indices[-1]) + 1):
        capture.grab()
        if number in wanted:
            kept.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(kept)


def pyav(path: str, indices: NDArray[np.int64], times: NDArray[np.float64]) -> Frames:
    """PyAV: decode up to the last wanted frame, convert the wanted ones."""
    import av

    kept, wanted, last = [], set(indices.tolist()), int(indices[-1])
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
            if number == last:
                break
    return np.stack(kept)


def torchcodec(path: str, indices: NDArray[np.int64], times: NDArray[np.float64]) -> Frames:
    """torchcodec in its exact mode, by frame number."""
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(path, dimension_order="NHWC").get_frames_at(indices.tolist()).data.numpy()


def readers() -> dict[str, Reader]:
    """What can be compared here: PyAV and torchcodec where they are installed and load."""
    found: dict[str, Reader] = {"ours": ours, "bare_read": bare_read, "grab": grab}
    for name, reader in (("av", pyav), ("torchcodec", torchcodec)):
        try:
            if importlib.util.find_spec(name):
                importlib.import_module("torchcodec.decoders" if name == "torchcodec" else name)
                found["pyav" if name == "av" else name] = reader
        except (ImportError, RuntimeError, OSError) as error:
            print(f"{name} is not compared: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def moving_picture(width: int, height: int, frames: int) -> Iterator[Frames]:
    """uint8 (H, W, 3) frames of a smooth random picture that drifts, with grain: neither still nor noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.integers(-6, 7, (8, height, width, 1), dtype=np.int16)
    for number in range(frames):
        at = abs(number % (2 * width) - width)  # there and back
        yield np.clip(picture[:, at : at + width] + grain[number % 8], 0, 255).astype(np.uint8)


def render(path: str, codec: str, size: tuple[int, int, int]) -> None:
    """Write one file: H.264 by PyAV (a key frame every 250 frames, x264's default), the others by OpenCV."""
    width, height, count = size
    if codec == "h264":
        import av

        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=int(FPS), options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in moving_picture(width, height, count):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        return
    fourcc = cv2.VideoWriter_fourcc(*{"mpeg4": "mp4v", "mjpeg": "MJPG"}[codec])  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, fourcc, FPS, (width, height))
    for frame in moving_picture(width, height, count):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


@dataclass(frozen=True)
class Row:
    """Median milliseconds of each way to do one thing with one file."""

    task: str
    codec: str
    milliseconds: dict[str, float]

    def ratio(self, other: str) -> float:
        """Time of another way over ours."""
        return self.milliseconds[other] / self.milliseconds["ours"]


def in_turns(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each way, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) * 1000 for name, values in seconds.items()}


def compare(task: str, codec: str, path: str, indices: NDArray[np.int64], names: Sequence[str], repeats: int) -> Row:
    """Measure some readers on the same frames of one file.

    Raises:
        RuntimeError: a reader gave other frames than ours; the comparison would mean nothing.
    """
    times = probe(path).times
    chosen = {name: reader for name, reader in readers().items() if name in names}
    expected = ours(path, indices, times)
    if not np.array_equal(read_frames(path, indices).times, times[indices]):
        raise RuntimeError(f"{path}: reading through landed on other timestamps")
    for name, reader in chosen.items():  # also warms the file cache
        got = reader(path, indices, times)
        off = np.abs(got.astype(np.int16) - expected).mean(axis=(1, 2, 3))
        if got.shape != expected.shape or off.max() > (TOLERANCE if name in ("pyav", "torchcodec") else 0):
            raise RuntimeError(f"{name} gave other frames of {path}: off by {off.max():.1f}")
    ways = {name: lambda reader=reader: reader(path, indices, times) for name, reader in chosen.items()}
    return Row(task, codec, in_turns(ways, repeats))  # type: ignore[arg-type]


def sampled(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The 16 frames that uniform sampling looks at."""
    return np.unique(frames_at(times, uniform_times(float(times[0]), float(times[-1]), WANTED)))


def bench_reading(folder: str, quick: bool) -> list[Row]:
    """Short and long files of each codec."""
    rows = []
    everyone = ("ours", "bare_read", "grab", "pyav", "torchcodec")
    for codec, suffix in CODECS.items():
        if codec == "h264" and not importlib.util.find_spec("av"):
            print("h264 is not measured: OpenCV's wheel cannot write it; install the extra [av]", file=sys.stderr)
            continue
        short = str(Path(folder) / f"short_{codec}{suffix}")
        render(short, codec, SHORT)
        times = probe(short).times
        repeats = 7 if quick else 21
        rows.append(compare("all of 300", codec, short, np.arange(len(times)), ("ours", "bare_read"), repeats))
        rows.append(compare("16 of 300", codec, short, sampled(times), everyone, repeats))
        if quick and codec != "h264":
            continue
        long = str(Path(folder) / f"long_{codec}{suffix}")
        render(long, codec, LONG)
        rows.append(compare("16 of 15,000", codec, long, sampled(probe(long).times), everyone, 3 if quick else 5))
        os.unlink(long)
    return rows


def bench_ingest(folder: str, quick: bool) -> Row:
    """Cataloguing clips that were never seen, in one process and in one per core."""
    source = str(Path(folder) / "clip.mp4")
    frames = np.stack(list(moving_picture(320, 240, 150)))
    write_video(source, frames, FPS)
    entries = []
    for number in range(60 if quick else 160):
        path = Path(folder) / f"clip_{number}.mp4"
        shutil.copy(source, path)
        with path.open("ab") as file:
            file.write(b"\0\0\0\x0cfree%04d" % number)  # an empty box makes each content its own
        entries.append(Entry(str(path), "a", None, None))

    def build(workers: int) -> None:
        with tempfile.TemporaryDirectory() as cache:
            catalog.build(entries, workers=workers, cache=cache)

    cores = usable_cores()
    return Row(
        f"catalogue {len(entries)} clips", "mpeg4",
        in_turns({"ours": lambda: build(cores), "one process": lambda: build(1)}, 3),
    )  # fmt: skip


def bench_encoder() -> float:
    """`encoder_folded` of scripts/bench_encoder.py."""
    import subprocess

    script = Path(__file__).with_name("bench_encoder.py")
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--json"], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout)["encoder_folded"])


def ratios(rows: Sequence[Row], ingest: Row, encoder: float) -> dict[str, float]:
    """The named ratios: the worst codec of each, then each codec's own."""
    wanted = {
        "read_all": ("all of 300", ("bare_read",)),
        "sample_short": ("16 of 300", ("grab",)),
        "sample_long": ("16 of 15,000", ("grab",)),
        "peers_short": ("16 of 300", ("pyav", "torchcodec")),
        "peers_long": ("16 of 15,000", ("pyav", "torchcodec")),
    }
    found: dict[str, float] = {}
    for key, (task, others) in wanted.items():
        each = {
            row.codec: min(row.ratio(other) for other in others if other in row.milliseconds)
            for row in rows
            if row.task == task and any(other in row.milliseconds for other in others)
        }
        if each:
            found[key] = min(each.values())
            found |= {f"{key}_{codec}": value for codec, value in each.items()}
    found |= {"ingest_scaling": ingest.ratio("one process"), "encoder_folded": encoder}
    return {key: round(value, 3) for key, value in found.items()}


def table(rows: Sequence[Row], ingest: Row, encoder: float) -> str:
    """The rows as Markdown: milliseconds, and how many times ours each takes."""
    names = ("ours", "bare_read", "grab", "pyav", "torchcodec")
    lines = [f"| frames | codec | {' | '.join(f'{name}, ms' for name in names)} |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [
            f"{row.milliseconds[name]:.0f} ({row.ratio(name):.2f})" if name in row.milliseconds else ""
            for name in names
        ]
        lines.append(f"| {row.task} | {row.codec} | {' | '.join(cells)} |")
    lines += ["", f"{ingest.task}: {ingest.ratio('one process'):.2f} times the speed of one process"]
    lines.append(f"encoder, plain over ours: {encoder:.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, one long file; about a minute")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named ratios")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = bench_reading(folder, options.quick)
        ingest = bench_ingest(folder, options.quick)
    encoder = bench_encoder()
    print(json.dumps(ratios(rows, ingest, encoder)) if options.json else table(rows, ingest, encoder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
