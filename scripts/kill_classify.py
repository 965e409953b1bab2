"""Kill classifications at random moments, let the same call go on, and compare the table with one never disturbed.

    .venv/bin/python scripts/kill_classify.py             20 trials with SIGKILL; some minutes
    .venv/bin/python scripts/kill_classify.py --quick     3 trials in one process each, without decoding processes
    .venv/bin/python scripts/kill_classify.py --json      one flat object; the exit code is 1 on any difference

The model has random weights; the archive has 36 small clips in three containers and two files that are no video. Even
trials are killed at a time drawn from the whole duration of a classification; odd ones at a step of writing (half way
through a line of the journal, or before a call of fsync or replace) drawn from all that one made. A third is killed a
second time while it goes on. Tables are CSV, JSON lines and Parquet in turn.

Compared are all rows but for `seconds`; and nothing but the table may be left in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.model import checkpoint
from pipeline.model.classifier import build_classifier
from pipeline.stages.classify import classify
from pipeline.stages.journal import Journal
from pipeline.stages.predict import load_predictor
from pipeline.video.writer import write_video

SUFFIXES = ("csv", "jsonl", "parquet")
CLIPS = 36
LONGEST = 300.0
"""Seconds after which a classification that should end has hung."""


def write_archive(folder: Path) -> Path:
    """Clips of 3 to 13 frames, and two files that are none."""
    rng = np.random.default_rng(11)
    clips = folder / "clips"
    clips.mkdir()
    for number in range(CLIPS):
        frames = rng.integers(0, 256, (3 + number % 11, 32, 48, 3), dtype=np.uint8)
        write_video(str(clips / f"{number:02d}{('.avi', '.mp4', '.webm')[number % 3]}"), frames, 10.0)
    for name in ("05b.mp4", "30b.avi"):
        (clips / name).write_bytes(b"no video " * 20)
    return clips


def write_model(folder: Path) -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    config = Config(
        video=VideoConfig(frames=6, size=32),
        encoder=EncoderConfig(name="compact", weights="none", frozen=True),
        recurrent=RecurrentConfig(hidden=16, layers=1),
    )
    with torch.inference_mode():
        model = build_classifier(config, 3)
        checkpoint.save(folder / "model", model.state_dict(), checkpoint.Card(to_dict(config), ["a", "b", "c"]))
    return folder / "model"


class Aim:
    """Counts steps of writing, and kills this process at one of them; 0: at none."""

    def __init__(self, number: int) -> None:
        self.number, self.steps = number, 0
        append = Journal.append
        for name in ("fsync", "replace"):
            setattr(os, name, self._watched(getattr(os, name)))

        def half_written(journal: Journal, row: dict[str, Any]) -> None:
            if self._next():
                line = json.dumps(row).encode()
                with journal.path.open("ab") as file:
                    file.write(line[: len(line) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            append(journal, row)

        Journal.append = half_written  # type: ignore[method-assign]

    def _next(self) -> bool:
        self.steps += 1
        return self.steps == self.number

    def _watched(self, call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self._next():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped


def work(model: Path, clips: Path, out: Path, workers: int, aim: int) -> None:
    """What a trial's process does."""
    torch.set_num_threads(1)
    aimed = Aim(aim)
    classify(load_predictor(model, "cpu"), str(clips), out, workers=workers, keep=False)
    (out.parent / "steps").write_text(str(aimed.steps))


class Trials:
    """Classifications of one archive by one model, each in a process of its own."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, workers
        self.model, self.clips = write_model(folder), write_archive(folder)
        began = time.perf_counter()
        self.whole = self.attempt(folder / "whole" / "rows.jsonl")
        self.seconds = time.perf_counter() - began
        self.steps = int((folder / "whole" / "steps").read_text())
        self.expected = table(folder / "whole" / "rows.jsonl")

    def attempt(self, out: Path, after: float | None = None, aim: int = 0) -> bool:
        """Classify, to the end or the kill; whether it came to its end.

        Raises:
            RuntimeError: it failed by itself, or hung.
        """
        out.parent.mkdir(exist_ok=True)
        # forked: what is imported is there already, and as nothing was computed no thread is lost
        process = get_context("fork").Process(target=work, args=(self.model, self.clips, out, self.workers, aim))
        process.start()
        process.join(LONGEST if after is None else after)
        if process.exitcode is None:
            process.kill()
            process.join()
            if after is None:
                raise RuntimeError(f"a classification hung for {LONGEST:g} s")
        if process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a classification ended with {process.exitcode}")
        return process.exitcode == 0

    def trial(self, number: int, rng: random.Random) -> tuple[int, list[str]]:
        """One table: the kills that hit it, and how it differs."""
        folder = self.folder / f"trial{number}"
        out = folder / f"rows.{SUFFIXES[number % 3]}"
        kills = 0
        for _ in range(2 if number % 3 == 2 else 1):
            after = rng.uniform(0, self.seconds) if number % 2 == 0 else None
            aim = rng.randint(1, self.steps) if number % 2 else 0
            while (over := self.attempt(out, after, aim)) and after is not None and not kills:
                shutil.rmtree(folder)  # it was over before it could be killed: once more, and sooner
                after /= 2
            if over:
                break  # what is over needs no other attempt
            kills += 1
        if kills:
            self.attempt(out)
        left = sorted(path.name for path in folder.iterdir() if path.name not in (out.name, "steps"))
        found = [f"left behind: {name}" for name in left]
        return kills, found + differences(self.expected, table(out))


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of any kind of table as plain values, without their seconds."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
        rows = json.loads(read(path).to_json(orient="records", double_precision=15))
    for row in rows:
        row["top_k"] = json.loads(row["top_k"]) if isinstance(row["top_k"], str) else row["top_k"]
        del row["seconds"]
    return [json.loads(json.dumps(row), parse_float=lambda text: round(float(text), 12)) for row in rows]


def differences(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    """In words; empty is the same in CSV as nothing."""
    if [row["path"] for row in expected] != [row["path"] for row in found]:
        return [f"{len(found)} rows of {len(expected)}, or in another order"]
    return [
        f"{Path(one['path']).name}: {key} is {other[key]}, not {value}"
        for one, other in zip(expected, found, strict=True)
        for key, value in one.items()
        if (other[key] or None) != (value or None)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="3 trials, without decoding processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args(arguments)
    rng, kills, found = random.Random(options.seed), [], []
    count = 3 if options.quick else options.trials
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), 0 if options.quick else 2)
        for number in range(count):
            hit, differing = trials.trial(number, rng)
            kills.append(hit)
            found += [f"trial {number}: {what}" for what in differing]
            if not options.json:
                print(f"trial {number}: {hit} kills, {len(differing)} differences", flush=True)
    result = {"trials": count, "rows": len(trials.expected), "kills": sum(kills), "differences": len(found)}
    print(json.dumps(result) if options.json else "\n".join([*found, str(result)]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
