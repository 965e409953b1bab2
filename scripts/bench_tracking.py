"""What MLflow costs a training of the demo, and how much it keeps of it.

    .venv/bin/python scripts/bench_tracking.py            the table of docs/benchmarks.md; about 25 minutes
    .venv/bin/python scripts/bench_tracking.py --quick    fewer clips and epochs, one turn: that it runs
    .venv/bin/python scripts/bench_tracking.py --json     one flat object

The command `video-lstm train configs/demo.yaml` is run from its start to its end with tracking on and off, in turns
(on, off, off, on, ...), so that a machine that becomes slower meanwhile slows both. The clips are rendered first and
examined by a first, short training, which also makes the SQLite store: that is done once in a store's life.

overhead        median time with tracking over median time without, less 1; everything counts: importing MLflow, making
                the run, a record per epoch, the artifacts, waiting for the last request
artifact_ratio  bytes of all artifacts of the run, over those of its checkpoint's folder
spread          of the times without tracking: largest less smallest, over their median
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.data.demo import write_demo
from pipeline.tracking.store import connect

ROOT = Path(__file__).resolve().parents[1]


def train(place: Path, name: str, *options: str) -> float:
    """Seconds of one training by the command."""
    command = [
        sys.executable, "-m", "pipeline", "train", str(ROOT / "configs/demo.yaml"), "--data.root", str(place / "clips"),
        "--out", str(place / name), "--json", *options,
    ]  # fmt: skip
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    own = {"VIDEO_LSTM_CACHE": str(place / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db"}
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=place, env=os.environ | own | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"a training failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def artifacts(place: Path, name: str) -> tuple[int, int]:
    """Bytes of all that the run of a training keeps, its LoggedModel included, and of the checkpoint itself."""
    run_id = json.loads((place / name / "result.json").read_text())["run_id"]
    client = connect(f"sqlite:///{place}/mlflow.db", create=False)
    run = client.get_run(run_id)
    models = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    kept = [local(run.info.artifact_uri), *(local(model.artifact_location) for model in models)]
    return sum(map(size, kept)), size(place / name / "best")


def local(uri: str) -> Path:
    """The folder of a file: URI or a path."""
    return Path(uri.removeprefix("file://"))


def size(folder: Path) -> int:
    """Bytes of its files.

    Raises:
        RuntimeError: it has none: then nothing was kept where this looks.
    """
    found = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if not found:
        raise RuntimeError(f"{folder}: no files")
    return found


def measured(place: Path, turns: int, groups: int, options: Sequence[str]) -> dict[str, Any]:
    """All of it."""
    write_demo(str(place / "clips"), groups, 0, lambda _: None, "label")
    train(place, "first", *options, "--training.epochs", "1")
    seconds: dict[str, list[float]] = {"true": [], "false": []}
    for turn in range(turns):
        for enabled in ("true", "false") if turn % 2 == 0 else ("false", "true"):
            took = train(place, f"{enabled}-{turn}", *options, "--tracking.enabled", enabled)
            seconds[enabled].append(took)
            print(f"turn {turn + 1} of {turns}: tracking {enabled:5} {took:.2f} s", file=sys.stderr)
    on, off = (statistics.median(seconds[enabled]) for enabled in ("true", "false"))
    total, checkpoint = artifacts(place, "true-0")
    return {
        "overhead": round(on / off - 1, 4),
        "artifact_ratio": round(total / checkpoint, 3),
        "seconds_on": round(on, 2),
        "seconds_off": round(off, 2),
        "spread": round((max(seconds["false"]) - min(seconds["false"])) / off, 4),
        "artifact_bytes": total,
        "checkpoint_bytes": checkpoint,
        "turns": turns,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="that it runs; the shares mean nothing")
    parser.add_argument("--turns", type=int, default=7, help="trainings of each kind")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-tracking-") as name:
        place, options = Path(name).resolve(), ["--training.epochs", "2"] if given.quick else []
        result = measured(place, 1 if given.quick else given.turns, 12 if given.quick else 120, options)
    if given.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{key:18} {value}" for key, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
