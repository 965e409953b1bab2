"""Copies made from real clips: how many are found again, and how many pairs of other clips are taken for copies.

    .venv/bin/python scripts/bench_duplicates.py [FOLDER]    a table: about two minutes on two cores
    .venv/bin/python scripts/bench_duplicates.py --full      copies of every clip
    .venv/bin/python scripts/bench_duplicates.py --json      one flat object

FOLDER (default ../shared/data beside the repository) holds data sets: folders with a clips.csv of path, label, group.
Every copy is a file of its own, and all go through `probe`, `fingerprint` and `find_duplicates` as in ingestion. A
copy is found when it is paired with its original, among all clips of its data set. A false pair is one of two
originals of different groups; all such pairs are counted, also those whose groups are wrong (see the names printed).
The demo's clips, 20 groups, are counted too: a false pair there would keep the demo from training.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.demo import write_demo
from pipeline.data.duplicates import find_duplicates
from pipeline.data.fingerprint import fingerprint
from pipeline.video.reader import probe, read_frames

import cv2  # isort: skip  (pipeline.video quiets it before its first import)

DATA = Path(__file__).resolve().parents[1] / "../shared/data"
SAMPLE = 20
"""Clips per data set of which copies are made, without --full."""
DEMO = "demo, 20 groups"
KINDS = ("reencoded", "resized", "mirrored", "trimmed", "cropped", "brightened", "half_rate")
H264 = (".mp4", "libx264", {"preset": "ultrafast", "crf": "26"})
LOW = (  # low quality: blocks and blur are plain to see
    (".avi", "mpeg4", {"qmin": "20", "qmax": "20"}),
    (".avi", "mjpeg", {"qmin": "20", "qmax": "20"}),
    (".webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "55", "b": "0"}),
)

Frames = NDArray[np.uint8]
Format = tuple[str, str, dict[str, str]]


@dataclass
class Row:
    """One data set: per kind whether each copy was found, pairs of different groups, the false ones by name."""

    data: str
    clips: int
    pairs: int
    false: list[str]
    found: dict[str, list[bool]] = field(default_factory=dict)

    def share(self, kind: str) -> float:
        """Part of the copies of a kind that was found; 1 where none was made."""
        return float(np.mean(self.found[kind])) if self.found.get(kind) else 1.0


def copies(frames: Frames) -> Iterator[tuple[str, Frames, float, Format]]:
    """Kind, frames uint8 (T, H, W, 3), factor of the frame rate, and format of every copy of a clip."""
    count, height, width = frames.shape[:3]
    for low in LOW:
        yield "reencoded", frames, 1.0, low
    for wide, high in ((0.5, 0.5), (0.6, 0.9)):
        size = (int(width * wide), int(height * high))
        yield "resized", np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames]), 1.0, H264
    yield "mirrored", frames[:, :, ::-1], 1.0, H264
    cut = count // 4
    for part in (slice(cut, None), slice(None, count - cut), slice(cut, count - cut)):
        yield "trimmed", frames[part], 1.0, H264
    for share in (0.05, 0.1):
        top, left = int(height * share), int(width * share)
        yield "cropped", frames[:, top : height - top, left : width - left], 1.0, H264
    yield "brightened", np.clip(frames * 0.75 + 45.0, 0, 255).astype(np.uint8), 1.0, H264
    yield "half_rate", frames[::2], 0.5, H264


def write(path: str, frames: Frames, fps: float, codec: str, options: dict[str, str]) -> None:
    """Write a file with PyAV, which lets the quality be chosen; an odd last row or column is left out."""
    import av

    height, width = (side - side % 2 for side in frames.shape[1:3])
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def look(path: str) -> NDArray[np.uint64]:
    """What ingestion remembers of a file."""
    return fingerprint(probe(path, thumbnails=True).thumbnails)


def looks_of_copies(path: str) -> list[tuple[str, NDArray[np.uint64]]]:
    """Kind and fingerprint of every copy of a clip."""
    info = probe(path)
    frames = read_frames(path, np.arange(info.frames)).frames
    looks = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, changed, rate, (suffix, codec, options)) in enumerate(copies(frames)):
            file = str(Path(folder) / f"{number}{suffix}")
            write(file, changed, info.fps * rate, codec, options)
            looks.append((kind, look(file)))
    return looks


def measure(folder: Path, name: str, sample: int | None, seed: int, pool: ProcessPoolExecutor) -> Row:
    """One data set: `sample` clips are copied, drawn by `seed`; None: all."""
    with open(folder / "clips.csv", encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    paths, groups = [str(folder / row["path"]) for row in listed], [row["group"] for row in listed]
    looks = list(pool.map(look, paths, chunksize=4))
    false = [
        f"{listed[pair.first]['path']} ({groups[pair.first]}), {listed[pair.second]['path']} ({groups[pair.second]}):"
        f" {pair.similarity:.2f}"
        for pair in find_duplicates(looks, groups)
    ]
    row = Row(name, len(paths), sum(a != b for a, b in combinations(groups, 2)), false)
    drawn = np.random.default_rng(seed).permutation(len(paths))[:sample].tolist()
    origins: list[tuple[int, str]] = []
    for original, made in zip(drawn, pool.map(looks_of_copies, [paths[index] for index in drawn]), strict=True):
        for kind, copy in made:
            origins.append((original, kind))
            looks.append(copy)
    pairs = {(pair.first, pair.second) for pair in find_duplicates(looks)} if origins else set()
    for number, (original, kind) in enumerate(origins, start=len(paths)):
        row.found.setdefault(kind, []).append((original, number) in pairs)
    return row


def bench(data: Path, full: bool, seed: int) -> list[Row]:
    """A row per data set of a folder, and one for the demo's clips."""
    rows = []
    with tempfile.TemporaryDirectory() as demo, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        run = partial(measure, seed=seed, pool=pool)
        for listing in sorted(data.glob("*/clips.csv")):
            rows.append(run(listing.parent, listing.parent.name, None if full else SAMPLE))
            print(f"{rows[-1].data}: done", file=sys.stderr, flush=True)
        write_demo(demo, groups=20, seed=seed)
        rows.append(run(Path(demo), DEMO, 0))
    return rows


def results(rows: Sequence[Row]) -> dict[str, float]:
    """The share found of each kind, over all data sets and in each, and false pairs per 1,000 likewise."""
    flat: dict[str, float] = {}
    for kind in KINDS:
        every = [found for row in rows for found in row.found.get(kind, [])]
        flat[kind] = round(float(np.mean(every)), 4)
    flat["false_per_1000"] = round(1000 * sum(len(row.false) for row in rows) / sum(row.pairs for row in rows), 3)
    for row in rows:
        name = row.data.split(",")[0]
        flat |= {f"{name}_{kind}": round(row.share(kind), 4) for kind in KINDS if kind in row.found}
        flat[f"{name}_false_per_1000"] = round(1000 * len(row.false) / max(1, row.pairs), 3)
    return flat


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, and the false pairs by name."""
    lines = [f"| data | {' | '.join(KINDS)} | false pairs | per 1,000 |", "|---" * (len(KINDS) + 3) + "|"]
    for row in rows:
        shares = [f"{row.share(kind):.3f} of {len(row.found[kind])}" if kind in row.found else "" for kind in KINDS]
        false = f"{len(row.false)} of {row.pairs} | {1000 * len(row.false) / max(1, row.pairs):.2f}"
        lines.append(f"| {row.data} ({row.clips} clips) | {' | '.join(shares)} | {false} |")
    flat = results(rows)
    lines.append(f"| all | {' | '.join(f'{flat[kind]:.3f}' for kind in KINDS)} | | {flat['false_per_1000']:.2f} |")
    return "\n".join([*lines, "", *(f"{row.data}: {name}" for row in rows for name in row.false)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA, help="folder of data sets (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="copies of every clip; a quarter of an hour")
    parser.add_argument("--seed", type=int, default=0, help="draws the clips that are copied (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args(arguments)
    if not any(options.data.glob("*/clips.csv")):
        print(f"skipped: no data set with a clips.csv in {options.data}", file=sys.stderr)
        return 0
    try:
        import av  # noqa: F401
    except ImportError:
        print("skipped: the copies are written with PyAV; pip install 'video-lstm[av]'", file=sys.stderr)
        return 0
    rows = bench(options.data, options.full, options.seed)
    print(json.dumps(results(rows)) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
