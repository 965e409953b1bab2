"""Does a long training leave anything behind: memory from epoch to epoch; files, processes, threads at its end?

    .venv/bin/python scripts/soak_train.py            50 epochs on stored features, 50 from files by two processes
    .venv/bin/python scripts/soak_train.py --quick    10 epochs from files; under a minute
    .venv/bin/python scripts/soak_train.py --json     one flat object

rss: resident memory after the last epoch over that after a tenth of them, when all that is loaded once is loaded; the
decoding processes are measured beside it. Everything else is counted before and after a training, the second in this
process: the first one opens what stays open as long as the process, such as MLflow's connection to its store.
The exit code is 1 where anything is left, or where memory grew by more than a twentieth.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kill_trials
import psutil

from pipeline.config import Config
from pipeline.model.checkpoint import config_from_dict
from pipeline.process import prepare_process
from pipeline.stages import keeper
from pipeline.stages.train import train

GROWTH = 1.05
"""Memory that may be there at the end, over that after a tenth of the epochs."""


def open_things() -> dict[str, int]:
    """How many of everything that a training could leave are there now."""
    gc.collect()
    process, shared = psutil.Process(), Path("/dev/shm")  # noqa: S108  (only counted)
    return {
        "fds": process.num_fds(),
        "children": len(process.children(recursive=True)),
        "threads": threading.active_count(),
        "shared_memory": len(list(shared.glob("torch_*"))) + len(list(shared.glob("psm_*"))) if shared.is_dir() else 0,
    }


def soak(config: Config, folder: Path, epochs: int) -> dict[str, float]:
    """A short training, then a long one that is watched: growth of memory, and what is there more after it."""
    sizes: list[tuple[int, int]] = []

    def watch(*_: Any) -> None:
        process = psutil.Process()
        workers = sum(child.memory_info().rss for child in process.children(recursive=True))
        sizes.append((process.memory_info().rss, workers))

    def of(count: int) -> Config:
        return dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=count))

    train(of(2), folder / "short")
    before = open_things()
    train(of(epochs), folder / "long", on_epoch=watch)
    deadline = time.monotonic() + 5
    while (after := open_things()) != before and time.monotonic() < deadline:
        time.sleep(0.1)  # processes that were killed are still being buried
    early, late = sizes[max(epochs // 10, 2) - 1], sizes[-1]
    growth = {"rss": late[0] / early[0]} | ({"workers_rss": late[1] / early[1]} if early[1] else {})
    return {name: round(value, 3) for name, value in growth.items()} | {k: after[k] - before[k] for k in before}


def measure(epochs: int, kinds: Sequence[str]) -> dict[str, float]:
    """Each kind of training in turn; names such as `files_rss` and `stored_fds`."""
    found: dict[str, float] = {}
    keeper.SAVE_SECONDS = 0.5  # saving must not leave anything either
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        place = Path(name).resolve()
        os.environ |= {"VIDEO_LSTM_CACHE": str(place / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db"}
        kill_trials.write_clips(place / "clips")
        for kind in kinds:
            config = config_from_dict(kill_trials.options(kind, place / "clips"))
            found |= {f"{kind}_{key}": value for key, value in soak(config, place / kind, epochs).items()}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 epochs of the training from files")
    parser.add_argument("--epochs", type=int, default=50, help="of each kind of training")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    given = parser.parse_args(arguments)
    prepare_process()  # as the command does
    found = measure(10, ["files"]) if given.quick else measure(given.epochs, kill_trials.KINDS)
    grown = [name for name, value in found.items() if value > (GROWTH if name.endswith("rss") else 0)]
    print(json.dumps(found) if given.json else "\n".join(f"{name:<24} {value:g}" for name, value in found.items()))
    if grown:
        print(f"left behind: {', '.join(grown)}", file=sys.stderr)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
