"""Kill the MLflow server again and again while a training records to it, and compare with one that nothing disturbed.

    .venv/bin/python scripts/server_kills.py                10 kills in one training; about three minutes
    .venv/bin/python scripts/server_kills.py --kills 2      under a minute
    .venv/bin/python scripts/server_kills.py --json         one flat object; the exit code is 1 on any difference

A real `mlflow server` with SQLite and proxied artifacts is killed with SIGKILL, with all its processes, at moments
drawn from the seed; it stays away for up to four seconds, and comes up again. The training is the same each time, at
most two epochs a second. What is left over at its end is sent by `video-lstm sync`.

Compared are: the metrics' names, steps and values, each step once; the parameters; the tags; the status; that the
artifacts have the same names, and are the files of the training's folder to the byte; that a second sync sends nothing;
and that there is one run. Of what a clock or the machine says (metrics `time/` and `system/`, the last line of the
note, when the test split was read) only that it is there. Change nothing in the repository meanwhile: a run tells its
commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.tracking.store import ENVIRONMENT, connect
from pipeline.video.writer import write_video

ROOT = Path(__file__).resolve().parents[1]
EPOCHS_PER_KILL = 20
LONGEST = 900.0
"""Seconds after which a training that should end has hung."""
TRAINING = """
import sys, time
import torch
torch.set_num_threads(1)
from pipeline.options import config_parser, to_config
from pipeline.stages.train import train
parser = config_parser("train", "")
config = to_config(parser, parser.parse_args(["--config", sys.argv[1]]))
train(config, sys.argv[2], on_epoch=lambda *_: time.sleep(0.5))
"""
MEASURED = ("time/", "system/")
"""Metrics that are never the same twice."""
OWN = ("training.key", "mlflow.source.name", "mlflow.user")
"""Tags that two runs need not share."""


class Server:
    """`mlflow server` on this machine, which can be killed and started again at the same address.

    Args:
        folder: for its log and its artifacts.
        store: address of its database.
        environment: more for its processes.
        arguments: more for its command line.
    """

    def __init__(
        self, folder: Path, store: str, environment: dict[str, str] | None = None, arguments: Sequence[str] = ()
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--artifacts-destination", str(folder / "artifacts"), *arguments,
        ]  # fmt: skip
        own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": store}
        self._environment = {**ENVIRONMENT, **os.environ, **own, **(environment or {})}
        self._environment.pop("MLFLOW_TRACKING_URI", None)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it, without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def answers(self) -> bool:
        """Whether it is up."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.address}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.begin()
        deadline = time.monotonic() + 180
        while not self.answers():
            if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                raise RuntimeError(f"the server does not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def write_clips(folder: Path) -> None:
    """Two classes in six groups, told apart by their colour."""
    rng = np.random.default_rng(3)
    for label, colour in (("blue", (40, 60, 200)), ("red", (200, 50, 40))):
        (folder / label).mkdir(parents=True)
        for group in range(1, 7):
            frames = np.clip(np.array(colour) + rng.integers(-40, 40, (6, 32, 48, 3)), 0, 255).astype(np.uint8)
            write_video(str(folder / label / f"v_{label}_g{group:02d}_c01.avi"), frames, 10.0)


def train(place: Path, experiment: str, epochs: int, address: str) -> subprocess.Popen[bytes]:
    """Begin a training."""
    folder = place / experiment
    folder.mkdir()
    options = {
        "name": "kills",
        "data": {"root": str(place / "clips"), "val": 0.2, "test": 0.3},
        "video": {"frames": 4, "size": 32},
        "encoder": {"name": "compact", "weights": "none", "frozen": False},
        "recurrent": {"hidden": 8, "layers": 1},
        "training": {"epochs": epochs, "batch_size": 4, "workers": 0, "device": "cpu", "patience": 0},
        "tracking": {"experiment": experiment, "uri": address},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "VIDEO_LSTM_CACHE": str(place / "cache")}
    command = [sys.executable, "-c", TRAINING, str(folder / "config.yaml"), str(folder / "run")]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)


def kill_again_and_again(server: Server, training: subprocess.Popen[bytes], kills: int, rng: random.Random) -> int:
    """How often it was killed before the training ended; it is up at the end."""
    done = 0
    while done < kills and training.poll() is None:
        time.sleep(rng.uniform(0.2, 3.0))
        if training.poll() is not None:
            break
        server.kill()
        done += 1
        time.sleep(rng.uniform(0.0, 4.0))
        server.start()
        print(f"kill {done}", file=sys.stderr)
    return done


def sync(folder: Path) -> dict[str, Any]:
    """What `video-lstm sync FOLDER` sends."""
    command = [sys.executable, "-m", "pipeline", "sync", str(folder), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    return found


def facts(address: str, experiment: str, folder: Path) -> dict[str, Any]:
    """What two runs have in common when nothing was lost or doubled.

    Args:
        address: of the store.
        experiment: that the run is in.
        folder: the training's, to compare the artifacts with.
    """
    client = connect(address)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    run_id, data = found[0].info.run_id, found[0].data
    facts: dict[str, Any] = {"runs": len(found), "status": found[0].info.status}
    facts["measured"] = sorted(name for name in data.metrics if name.startswith(MEASURED))
    points = {name: client.get_metric_history(run_id, name) for name in sorted(data.metrics.keys() - facts["measured"])}
    facts["metrics"] = {name: sorted((p.step, p.value) for p in history) for name, history in points.items()}
    facts["params"] = {key: value for key, value in data.params.items() if key != "tracking.experiment"}
    facts["tags"] = {key: without_clock(key, value) for key, value in data.tags.items() if key not in OWN}
    with tempfile.TemporaryDirectory() as copy:
        root = Path(client.download_artifacts(run_id, "", copy))
        digests = {str(path.relative_to(root)): sha256(path) for path in root.rglob("*") if path.is_file()}
    facts["artifacts"] = sorted(digests)
    local = {"checkpoint": folder / "best", "report": folder / "report"}
    facts["files"] = {
        name: sha256(local[top] / rest) == digest
        for name, digest in digests.items()
        for top, _, rest in [name.partition("/")]
        if top in local and (local[top] / rest).exists()
    }
    return facts


def without_clock(key: str, tag: str) -> str:
    """A tag without the seconds of the stages, and without the time at which the test split was read."""
    if key == "mlflow.note.content":
        return tag.rstrip().rpartition("\n")[0]
    return tag.partition(" ")[2] if key == "test.last_reading" else tag


def sha256(path: Path) -> str:
    """Hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compared(place: Path, kills: int, seed: int) -> dict[str, Any]:
    """Both trainings, and what is different."""
    write_clips(place / "clips")
    server = Server(place, f"sqlite:///{place}/mlflow.db")
    epochs, seconds = EPOCHS_PER_KILL * kills, {}
    try:
        server.start()
        for experiment in ("undisturbed", "killed"):
            began = time.monotonic()
            training = train(place, experiment, epochs, server.address)
            if experiment == "killed":
                while b"epoch" not in (place / experiment / "log").read_bytes() and training.poll() is None:
                    time.sleep(0.1)
                kills = kill_again_and_again(server, training, kills, random.Random(seed))
            if training.wait(LONGEST):
                raise RuntimeError(f"a training failed:\n{(place / experiment / 'log').read_text()[-2000:]}")
            seconds[experiment] = time.monotonic() - began
        synced = [sync(place / "killed") for _ in range(2)]
        found = [facts(server.address, name, place / name / "run") for name in ("undisturbed", "killed")]
    finally:
        server.kill()
    different = []
    for name, (one, other) in ((name, (found[0][name], found[1][name])) for name in found[0]):
        parts = one.keys() | other.keys() if isinstance(one, dict) else ()
        different += [f"{name} {part}" for part in parts if one.get(part) != other.get(part)]
        different += [name] if one != other and not parts else []
    different += [f"file {name}" for one in found for name, same in one["files"].items() if not same]
    if synced[0]["left"] or synced[1]["sent"] or list(place.rglob("outbox")):
        different.append("something waits still")
    points = sum(len(history) for history in found[1]["metrics"].values())
    return {
        "kills": kills, "different": len(different), "differences": different, "points": points,
        "artifacts": len(found[1]["artifacts"]), "sent_by_sync": synced[0]["sent"],
        **{f"seconds_{name}": round(value, 1) for name, value in seconds.items()},
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="how often the server is killed")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="server-kills-") as name:
        result = compared(Path(name).resolve(), given.kills, given.seed)
    if given.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{key:20} {value}" for key, value in result.items()))
    return 1 if result["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
