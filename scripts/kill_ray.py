"""Kill what works for `classify --engine ray` in the middle, and compare the table with that of one machine.

    .venv/bin/python scripts/kill_ray.py             3 trials; about four minutes
    .venv/bin/python scripts/kill_ray.py --json      one flat object; the exit code is 1 on any difference

A cluster of two nodes with a core each, on loopback, is started for all trials. In turn a worker that decodes, an actor
with the model, and the command itself get SIGKILL as soon as the journal has some rows; the command is then given once
more. The model has random weights; the archive has a few hundred small clips in three containers, and files that are
no video. Compared are all rows but for `seconds`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from kill_classify import differences, table, write_archive, write_model

from pipeline.stages.scale.session import own_signals, quieten

VICTIMS = {"decoding": "decode", "model": "Answering", "command": ""}
"""What is killed, and what Ray calls the process of it."""
COPIES = 12
"""Of the archive's clips, in folders of their own: long enough to be killed in the middle."""
LOOPBACK = "127.0.0.2"
"""Not 127.0.0.1: Ray takes that for this machine's address in its network."""
LONGEST = 240.0
"""Seconds after which something has hung."""


def folder_for_ray() -> str:
    """A new folder for the nodes of a `Cluster`. Ray writes its address into the default one all the same, and does not
    make that.
    """
    Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
    return tempfile.mkdtemp(prefix="ray")


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with a core each."""
    quieten()
    from ray.cluster_utils import Cluster

    folder = folder_for_ray()
    head = {"num_cpus": 1, "node_ip_address": LOOPBACK, "include_dashboard": False, "temp_dir": folder}
    with own_signals():
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1, node_ip_address=LOOPBACK)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def started(model: Path, clips: Path, out: Path, address: str) -> subprocess.Popen[bytes]:
    """The command, at work."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "pipeline", "classify", str(model), str(clips), "--out", str(out), "--engine", "ray",
            "--ray.address", address, "--ray.files", "2",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for its end.

    Raises:
        RuntimeError: it failed.
    """
    _, said = process.communicate(timeout=LONGEST)
    if process.returncode:
        raise RuntimeError(f"classify ended with {process.returncode}:\n{said.decode()[-2000:]}")


def rows_in(out: Path) -> int:
    """Of the journal."""
    journal = out.with_name(f".{out.name}.journal")
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def workers(name: str) -> list[psutil.Process]:
    """The processes that Ray calls so."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or [])
        if title.startswith("ray::") and name in title:
            found.append(process)
    return found


def killed(victim: str, process: subprocess.Popen[bytes], out: Path) -> int:
    """Kill what works for a command as soon as its journal has a row; the rows that were there."""
    deadline = time.monotonic() + LONGEST
    while True:
        rows = rows_in(out)
        hit = [process] if victim == "command" else workers(VICTIMS[victim])
        if rows and hit:
            os.kill(hit[0].pid, signal.SIGKILL)
            if victim == "command":
                process.communicate(timeout=LONGEST)
            return rows
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"nothing to kill: {process.communicate()[1].decode()[-2000:]}")
        time.sleep(0.01)


def trial(victim: str, model: Path, clips: Path, out: Path, address: str) -> int:
    """One table, whose work was disturbed; the rows that were there at the kill."""
    process = started(model, clips, out, address)
    rows = killed(victim, process, out)
    finish(started(model, clips, out, address) if victim == "command" else process)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=VICTIMS, default=list(VICTIMS), help="what is killed, in turn")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    options = parser.parse_args(arguments)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as place, two_nodes() as address:
        folder = Path(place)
        model, clips = write_model(folder), write_archive(folder)
        for number in range(COPIES):
            shutil.copytree(clips, folder / "archive" / f"{number:02d}")
        whole = folder / "whole.jsonl"
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "classify",
            str(model),
            str(folder / "archive"),
            "--out",
            str(whole),
        ]
        subprocess.run(command, check=True, capture_output=True)
        expected = table(whole)
        for victim in options.only:
            out = folder / f"{victim}.jsonl"
            rows = trial(victim, model, folder / "archive", out, address)
            differing = differences(expected, table(out))
            found += [f"{victim}: {what}" for what in differing]
            if not options.json:
                print(f"{victim} killed after {rows} of {len(expected)} rows: {len(differing)} differences", flush=True)
    result = {"trials": len(options.only), "rows": len(expected), "differences": len(found)}
    print(json.dumps(result) if options.json else "\n".join([*found[:20], str(result)]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
