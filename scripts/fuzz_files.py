"""Mutated real files through the catalogue: nothing may crash or hang the parent, and each file has its row.

    .venv/bin/python scripts/fuzz_files.py FOLDER...                 2,000 files made from the videos below FOLDER
    .venv/bin/python scripts/fuzz_files.py FOLDER... --files 200     fewer
    .venv/bin/python scripts/fuzz_files.py FOLDER... --json          counts per status as one JSON object

Mutations: bit flips (few, many, only in the first kilobyte), cuts at every 5%, holes of zeros, headers swapped between
files, two files one after the other, and pieces repeated. The same seed makes the same files. Files that gave a finding
nobody expects (a crash, a time-out, memory) are kept in --keep, to become tests.

Exit code 1 if a file has no row, or took longer than the limit allows.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import LimitsConfig
from pipeline.data import catalog
from pipeline.data.layouts import Entry
from pipeline.errors import Reason
from pipeline.stages.progress import bar
from pipeline.video.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

LARGEST = 1_000_000
"""Bytes. Larger originals only make the run slow."""

BATCH = 100
"""Files on the disk at a time."""

LOST = (str(Reason.CRASHED), str(Reason.TIMED_OUT), str(Reason.OUT_OF_MEMORY))

Mutation = Callable[[bytes, bytes, random.Random], bytes]


def few_bits(data: bytes, _: bytes, rng: random.Random) -> bytes:
    """1 to 20 bits turned, anywhere."""
    return _flipped(data, rng.randint(1, 20), len(data), rng)


def many_bits(data: bytes, _: bytes, rng: random.Random) -> bytes:
    """One byte in 100 to 1,000 changed."""
    return _flipped(data, len(data) // rng.randint(100, 1000) + 1, len(data), rng)


def header_bits(data: bytes, _: bytes, rng: random.Random) -> bytes:
    """Up to 30 bits turned in the first kilobyte, where sizes and types stand."""
    return _flipped(data, rng.randint(1, 30), min(len(data), 1024), rng)


def tail_bits(data: bytes, _: bytes, rng: random.Random) -> bytes:
    """Up to 60 bits turned in the last 4 kB, where MP4 and AVI keep their index."""
    mirrored = _flipped(data[::-1], rng.randint(1, 60), min(len(data), 4096), rng)
    return mirrored[::-1]


def hole(data: bytes, _: bytes, rng: random.Random) -> bytes:
    """A stretch of up to a fifth of the file is zeros, as a broken download leaves it."""
    start = rng.randrange(len(data))
    length = rng.randint(1, max(1, len(data) // 5))
    return data[:start] + b"\0" * len(data[start : start + length]) + data[start + length :]


def swapped_header(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The beginning of another file before the rest of this one."""
    length = rng.choice([16, 64, 512, 4096])
    return other[:length] + data[length:]


def joined(data: bytes, other: bytes, _: random.Random) -> bytes:
    """Two files, one after the other."""
    return data + other


def stuttered(data: bytes, _: bytes, rng: random.Random) -> bytes:
    """A piece of the file twice."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 65536))
    return data[:end] + data[start:]


MUTATIONS: tuple[Mutation, ...] = (
    few_bits, many_bits, header_bits, tail_bits, hole, swapped_header, joined, stuttered,
)  # fmt: skip


def _flipped(data: bytes, count: int, within: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[rng.randrange(within)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def originals(folders: Sequence[str]) -> list[Path]:
    """Real files to start from, in a fixed order: videos and images below the folders."""
    kinds = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    found = [path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in kinds]
    return [path for path in found if path.is_file() and 0 < path.stat().st_size <= LARGEST]


def mutants(sources: Sequence[Path], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` (name, content) pairs: for each source in turn a cut or a mutation."""
    rng = random.Random(seed)
    order = rng.sample(list(sources), len(sources))
    for number in range(count):
        path, turn = order[number % len(order)], number // len(order)
        data = path.read_bytes()
        other = rng.choice(order).read_bytes()
        if rng.random() < 0.3:
            percent = 5 * rng.randint(1, 19)
            kind, content = f"cut_{percent}", data[: len(data) * percent // 100]
        else:
            mutation = rng.choice(MUTATIONS)
            kind, content = mutation.__name__, mutation(data, other, rng)
        yield f"{number:05d}_{turn}_{kind}{path.suffix}", content


def run(folders: Sequence[str], count: int, seed: int, limits: LimitsConfig, keep: Path | None) -> dict[str, Any]:
    """Write, catalogue and remove the mutants, a batch at a time."""
    sources = originals(folders)
    if not sources:
        sys.exit(f"no video up to {LARGEST} bytes below {', '.join(folders)}")
    statuses: Counter[str] = Counter()
    kept: list[str] = []
    rows, slowest = 0, 0.0
    pending = mutants(sources, count, seed)
    with bar("fuzzing", count) as advance:
        for start in range(0, count, BATCH):
            with tempfile.TemporaryDirectory() as folder:
                entries = []
                for name, content in (next(pending) for _ in range(min(BATCH, count - start))):
                    path = Path(folder) / name
                    path.write_bytes(content)
                    entries.append(Entry(str(path), "a", None, None))
                began = time.perf_counter()
                table = catalog.build(
                    entries, catalog.Policy(limits, "accept"), progress=advance, cache=str(Path(folder) / "cache")
                )
                slowest = max(slowest, time.perf_counter() - began)
                rows += len(table)
                for path_, status, marks in zip(table["path"], table["status"], table["marks"], strict=True):
                    partial = status == catalog.OK and "truncated" in marks
                    statuses["partly decoded" if partial else str(status)] += 1
                    if status in LOST:
                        kept.append(f"{status}: {Path(path_).name}")
                        if keep is not None:
                            keep.mkdir(parents=True, exist_ok=True)
                            shutil.copy(path_, keep)
    return {
        "files": count,
        "rows": rows,
        "originals": len(sources),
        "statuses": dict(statuses.most_common()),
        "lost": kept,
        "slowest_batch_seconds": round(slowest, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("FOLDER", nargs="+", help="where the real files are")
    parser.add_argument("--files", type=int, default=2000, help="how many mutants (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds make other mutants (default: 0)")
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit per file (default: 20)")
    parser.add_argument("--memory", type=int, default=2048, help="memory limit per file in MB (default: 2048)")
    parser.add_argument("--keep", type=Path, default=None, help="copy files that crash, hang or hog memory here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    limits = LimitsConfig(seconds=options.seconds, memory=options.memory)
    result = run(options.FOLDER, options.files, options.seed, limits, options.keep)
    # one file after the other on one core, each at its limit, is the longest a batch could honestly take
    hung = result["slowest_batch_seconds"] > BATCH * options.seconds
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{result['rows']} rows for {result['files']} files made from {result['originals']}")
        print("\n".join(f"{count:6d}  {status}" for status, count in result["statuses"].items()))
        print("\n".join(result["lost"]))
    return 1 if result["rows"] != result["files"] or hung else 0


if __name__ == "__main__":
    sys.exit(main())
