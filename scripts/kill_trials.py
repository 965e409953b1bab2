"""Kill trainings at random moments, let the same command go on, and compare what is left with one never stopped.

    .venv/bin/python scripts/kill_trials.py                  20 trials with SIGKILL; about half an hour
    .venv/bin/python scripts/kill_trials.py --quick          3 trials; under a minute on two free cores
    .venv/bin/python scripts/kill_trials.py --signal TERM    a scheduler's stop instead, which must end with 143
    .venv/bin/python scripts/kill_trials.py --json           one flat object; the exit code is 1 on any difference

Two trainings take turns: `stored`, of a frozen encoder on features from the store, and `files`, of an encoder that is
trained from files by two decoding processes. Each trial has a folder, a cache and an MLflow store of its own, so that a
kill can fall on the imports, the ingestion, the making of the store, the extraction, a batch, the validation, a save,
the test or the report. Even trials are killed at a time drawn from the whole duration of the training that was never
stopped; odd ones at a step of writing (a call of fsync, rename or replace, or half way through a file of tensors) drawn
from all that the first one made. A third of the trials is killed a second time while it goes on.

Compared are, to the bit: both checkpoints' weights, the history, what was seen inside, and the metrics of the test;
that MLflow has one run, which is finished, with the same metrics at the same steps (but for `time/`); that the folder
holds the same files; and that no process is left. Seconds are not compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from pipeline.tracking.store import connect
from pipeline.video.writer import write_video

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("stored", "files")
LONGEST = 600.0
"""Seconds after which a training that should end has hung."""

TRAINING = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
aim, number, counted = int(sys.argv.pop(1)), 0, sys.argv.pop(1)
import torch
torch.set_num_threads(1)
import safetensors.torch
from pathlib import Path

def step(name, half=None):
    global number
    number += 1
    if number == aim:
        if half is not None:
            half()
        os.kill(os.getpid(), getattr(signal, os.environ["TRIAL_SIGNAL"]))

def watched(name, call):
    def wrapped(*args, **kwargs):
        step(name)
        return call(*args, **kwargs)
    return wrapped

for name in ("fsync", "rename", "replace"):
    setattr(os, name, watched(name, getattr(os, name)))
save_file = safetensors.torch.save_file

def half_written(tensors, path, metadata=None):
    def half():
        save_file(tensors, path, metadata)
        os.truncate(path, os.path.getsize(path) // 2)
    step("save_file", half)
    save_file(tensors, path, metadata)

safetensors.torch.save_file = half_written
from pipeline.cli import main
from pipeline.stages import keeper
keeper.SAVE_SECONDS = 0.2
try:
    main(sys.argv[1:])
finally:
    Path(counted).write_text(str(number))
"""
"""The command itself, with more saves than usual; `aim` kills it at that step of writing, 0 at none."""


@dataclass
class Trial:
    """One training that was killed: how, where it was, what it came to."""

    kind: str
    kills: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def write_clips(folder: Path) -> None:
    """Two classes in six groups, told apart by their colour, and a file that is no video."""
    rng = np.random.default_rng(3)
    for label, colour in (("blue", (40, 60, 200)), ("red", (200, 50, 40))):
        (folder / label).mkdir(parents=True)
        for group in range(1, 7):
            for clip in (1, 2):
                frames = np.clip(np.array(colour) + rng.integers(-40, 40, (6 + clip, 32, 48, 3)), 0, 255)
                write_video(
                    str(folder / label / f"v_{label}_g{group:02d}_c{clip:02d}.avi"), frames.astype(np.uint8), 10.0
                )
    (folder / "red" / "v_red_g01_c09.avi").write_bytes(b"no video " * 20)


def options(kind: str, clips: Path) -> dict[str, Any]:
    """The configuration of a kind of training."""
    frozen = kind == "stored"
    return {
        "name": kind,
        "data": {"root": str(clips), "val": 0.2, "test": 0.3},
        "video": {"frames": 4, "size": 32},
        "augmentation": {"views": 2},
        "encoder": {
            "name": "efficientnet_lite0" if frozen else "compact",
            "weights": "packaged" if frozen else "none",
            "frozen": frozen,
        },
        "recurrent": {"hidden": 8, "layers": 1, "dropout": 0.2},
        "training": {
            "epochs": 12 if frozen else 6, "batch_size": 4, "learning_rate": 3e-3, "workers": 2, "device": "cpu",
        },
        "tracking": {"experiment": "trials"},
    }  # fmt: skip


def begin(folder: Path, aim: int, stop: str) -> subprocess.Popen[bytes]:
    """Start the command of a trial in a session of its own, so that whatever it leaves behind is found."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "VIDEO_LSTM_CACHE": str(folder / "cache"), "TRIAL_SIGNAL": f"SIG{stop}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }  # fmt: skip
    environment.pop("RANK", None)
    command = ["train", str(folder / "config.yaml"), "--out", str(folder / "run"), "--json"]
    with (folder / "stderr").open("ab") as errors, (folder / "stdout").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(ROOT), str(aim), str(folder / "steps"), *command],
            stdout=output, stderr=errors, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip


def left_of(session: int) -> list[str]:
    """Processes of a session that has lost its leader."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.info["cmdline"] or [])[:60])
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def run(folder: Path, trial: Trial, stop: str, after: float | None = None, aim: int = 0, refused: bool = False) -> bool:
    """The command once, to its end or to its kill; whether it ended by itself. `refused`: it must say that it had."""
    already = (folder / "stderr").stat().st_size if (folder / "stderr").exists() else 0
    process = begin(folder, aim, stop)
    try:
        code = process.wait(LONGEST if after is None else after)
    except subprocess.TimeoutExpired:
        process.send_signal(getattr(signal, f"SIG{stop}") if after is not None else signal.SIGKILL)
        code = process.wait(LONGEST)
        if after is None:
            trial.differences.append(f"it hung for {LONGEST:g} s")
    deadline = time.monotonic() + 5
    while (left := left_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    trial.differences += [f"left behind: {name}" for name in left]
    said = (folder / "stderr").read_bytes()[already:].decode()
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("findfont")]
    trial.said.append(lines[-2 if stop == "TERM" and len(lines) > 1 else -1].strip() if lines else "(nothing said yet)")
    if "Traceback" in said or "Exception ignored" in said:
        trial.differences.append("a traceback")
    # a SIGTERM while Python itself starts, or when the command is over, ends it as it would end any other process
    if refused:
        expected: tuple[int, ...] = (2,)
    else:
        expected = (0, -signal.SIGKILL) if stop == "KILL" else (0, 143, -signal.SIGTERM)
    if code not in expected:
        trial.differences.append(f"exit code {code}: {lines[-1] if lines else ''}")
    return code == 0


def sha256(path: Path) -> str:
    """Hex, or that there is nothing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def facts(folder: Path) -> dict[str, Any]:
    """What two trainings have in common when nothing was lost."""
    out, found = folder / "run", {}
    for name in ("best", "last"):
        found[f"{name} weights"] = sha256(out / name / "model.safetensors")
    for name in ("history", "inside", "metrics", "skipped"):
        path = out / "report" / f"{name}.json"
        value = json.loads(path.read_text().replace(str(folder), "")) if path.is_file() else "missing"
        for row in value if name == "history" and isinstance(value, list) else ():
            del row["seconds"]
        if name == "metrics" and isinstance(value, dict):
            del value["readings"][1:]  # a test that is killed reads its split once more, and that is noted
            for row in (value, *value["readings"]):  # digests include the run's identifier, which is random
                for key in ("model", "id", "time"):
                    row.pop(key, None)
        found[name] = value
    found["files"] = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    client = connect(f"sqlite:///{folder}/mlflow.db")
    experiments = [x.experiment_id for x in client.search_experiments() if x.name == "trials"]
    runs = client.search_runs(experiments) if experiments else []
    found["runs"] = [entry.info.status for entry in runs]
    for entry in runs[:1]:
        names = sorted(name for name in entry.data.metrics if not name.startswith(("time/", "system/")))
        points = {name: client.get_metric_history(entry.info.run_id, name) for name in names}
        found["recorded"] = {name: sorted((p.step, p.value) for p in history) for name, history in points.items()}
        found["failure"] = entry.data.tags.get("failure")
    return found


def undisturbed(place: Path, kind: str, clips: Path) -> tuple[float, int, dict[str, Any]]:
    """A training that is never stopped: its seconds, its steps of writing, and what it leaves."""
    folder = place / f"{kind}-undisturbed"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(options(kind, clips)))
    trial, started = Trial(kind), time.monotonic()
    if not run(folder, trial, "KILL") or trial.differences:
        raise SystemExit(f"the training without a kill failed: {trial.differences} {trial.said}")
    return time.monotonic() - started, int((folder / "steps").read_text()), facts(folder)


def disturb(
    place: Path,
    number: int,
    kind: str,
    clips: Path,
    stop: str,
    rng: random.Random,
    whole: tuple[float, int, dict[str, Any]],
) -> Trial:
    """One trial."""
    seconds, steps, expected = whole
    folder = place / f"{kind}-{number}"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(options(kind, clips)))
    trial = Trial(kind)
    if number % 2:
        aim = rng.randint(1, steps)
        trial.kills.append(f"write {aim} of {steps}")
        run(folder, trial, stop, aim=aim)
    else:
        after = rng.uniform(0, seconds)
        trial.kills.append(f"{after:.1f} s of {seconds:.1f}")
        run(folder, trial, stop, after=after)
    if rng.random() < 1 / 3 and not (folder / "run" / "result.json").exists():
        after = rng.uniform(0, seconds)
        trial.kills.append(f"{after:.1f} s")
        run(folder, trial, stop, after=after)
    if (folder / "run" / "result.json").exists():  # the kill came when all was done, but perhaps not yet tidied
        run(folder, trial, stop, refused=True)
    elif not run(folder, trial, stop):
        trial.differences.append("it did not end by itself")
    found = facts(folder)
    trial.differences += [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    return trial


def row(number: int, trial: Trial) -> str:
    """A trial as a line of the table."""
    words = "; ".join(text[:60].replace("|", "/") for text in trial.said[: len(trial.kills)])
    cells = [str(number), trial.kind, ", ".join(trial.kills), words, ", ".join(trial.differences) or "none"]
    return f"| {' | '.join(cells)} |"


def table(trials: Sequence[Trial]) -> str:
    """The trials as Markdown."""
    head = ["| # | training | killed at | last words before | difference |", "|---|---|---|---|---|"]
    return "\n".join(head + [row(number, trial) for number, trial in enumerate(trials, start=1)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 trials of the training from files")
    parser.add_argument("--trials", type=int, default=20, help="how many of each kind of training")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL", help="what is sent")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    given = parser.parse_args(arguments)
    rng, trials = random.Random(given.seed), []
    with tempfile.TemporaryDirectory(prefix="trials-") as name:
        place = Path(name).resolve()
        write_clips(place / "clips")
        for kind in KINDS[1:] if given.quick else KINDS:
            whole = undisturbed(place, kind, place / "clips")
            for number in range(3 if given.quick else given.trials):
                trials.append(disturb(place, number, kind, place / "clips", given.signal, rng, whole))
                print(row(len(trials), trials[-1]), file=sys.stderr)
    different = sum(bool(trial.differences) for trial in trials)
    if given.json:
        kills = sum(len(trial.kills) for trial in trials)
        print(json.dumps({"trials": len(trials), "kills": kills, "signal": given.signal, "different": different}))
    else:
        print(table(trials))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
