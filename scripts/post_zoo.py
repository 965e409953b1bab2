"""Posts every file of a folder to a served model, several at a time, and compares with what `classify` says.

    .venv/bin/python scripts/post_zoo.py runs/demo                       the odd files of ../shared/data/zoo, 4 at once
    .venv/bin/python scripts/post_zoo.py models:/video@champion --folder archive --at_once 8 --rounds 3
    .venv/bin/python scripts/post_zoo.py runs/demo --json

The server is MLflow's own, `mlflow models serve` in this environment, on a free port of this machine; a checkpoint's
folder is served from a folder, models:/... from the registry. `same`: files with the same status, label, probability
(to 1e-6), top-k and note; `alive`: the server answers afterwards; `memory`: MB of the server and all its processes
before the first round (after one good file), and after each. The exit code is 1 where an answer differs or the server
is gone.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from pipeline.config import TrackingConfig
from pipeline.errors import DataError
from pipeline.stages.classify import classify
from pipeline.stages.models import checkpoint_folder, load_model
from pipeline.stages.serve.folder import built, example_video
from pipeline.tracking.store import ENVIRONMENT, store_uri

START_SECONDS = 180.0
REQUEST_SECONDS = 300.0
COMPARED = ("status", "label", "probability", "top_k", "note", "segments", "value", "values")


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process, self.address, self.log = process, address, log

    def post(self, rows: list[dict[str, str]], **params: Any) -> tuple[int, Any]:
        """HTTP status, and the predictions or the text of the error."""
        body = json.dumps({"dataframe_records": rows, "params": params}).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.address}/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:  # noqa: S310
                return answer.status, json.load(answer)["predictions"]
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def alive(self) -> bool:
        """Whether it answers, and labels a good file."""
        if self.process.poll() is not None:
            return False
        status, rows = self.post([{"content": encoded(example_video())}])
        return status == 200 and rows[0]["status"] == "ok"

    def memory(self) -> float:
        """MB that it and all its processes have, shared pages divided among them."""
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self.process.pid)
            for one in (tree, *tree.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += one.memory_full_info().pss
        return total / 1e6


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextlib.contextmanager
def serving(uri: str, store: str, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """`mlflow models serve` on a free port, ended with all its processes.

    Args:
        uri: of the model, as MLflow takes it: a folder, runs:/ID/model, models:/NAME@ALIAS, ...
        store: tracking URI.
        environment: more variables for it.
    """
    port = free_port()
    folder = str(Path(sys.executable).parent)
    variables = {**ENVIRONMENT, **os.environ, "MLFLOW_TRACKING_URI": store, **(environment or {})}
    variables["PATH"] = f"{folder}{os.pathsep}{variables.get('PATH', '')}"  # MLflow starts uvicorn by its name
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--timeout", str(int(REQUEST_SECONDS))]
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=variables, stdout=out, stderr=out, start_new_session=True)
        served = Served(process, f"http://127.0.0.1:{port}", log)
        try:
            wait_until_it_answers(served)
            yield served
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(served: Served) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and served.process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{served.address}/ping", timeout=5):  # noqa: S310
            return
        time.sleep(0.2)
    raise SystemExit(f"the server does not answer:\n{served.log.read_text(errors='replace')[-3000:]}")


def posted(served: Served, files: list[Path], at_once: int) -> list[dict[str, Any]]:
    """The answer to each file, posted several at a time; an HTTP error is an answer too."""

    def one(file: Path) -> dict[str, Any]:
        status, rows = served.post([{"content": encoded(file.read_bytes()), "name": file.name}])
        return rows[0] if status == 200 else {"status": f"HTTP {status}", "note": str(rows)[:200]}

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, files))


def same(answer: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a served answer says what a row of `classify` says."""
    return all(close(answer.get(name), row.get(name)) for name in COMPARED)


def close(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, abs_tol=1e-6)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    return (a or None) == (b or None)  # nothing, and an empty note


def expected(model: str, tracking: TrackingConfig, files: list[Path]) -> list[dict[str, Any]]:
    predictor = load_model(model, "cpu", tracking)
    try:
        return classify(predictor, [str(file) for file in files]).table
    except DataError:  # none of them is a video
        return [{"status": "none"}] * len(files)


def run(model: str, folder: Path, at_once: int, rounds: int, tracking: TrackingConfig) -> dict[str, Any]:
    """Everything that is measured."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in (".tsv", ".md"))
    if not files:
        raise SystemExit(f"{folder}: no files")
    rows = expected(model, tracking, files)
    store, environment = store_uri(tracking), {"VIDEO_LSTM_SERVE_DEVICE": "cpu", "VIDEO_LSTM_SERVE_TIMEOUT": "120"}
    with contextlib.ExitStack() as stack:
        uri = model
        if not model.startswith("models:/"):
            uri = str(stack.enter_context(built(stack.enter_context(checkpoint_folder(model, tracking)))))
        served = stack.enter_context(serving(uri, store, environment))
        served.alive()
        memory, times, differ = [served.memory()], [], {}
        for _ in range(rounds):
            started = time.monotonic()
            for file, answer, row in zip(files, posted(served, files, at_once), rows, strict=True):
                if not same(answer, row):
                    differ[file.name] = {"served": answer, "classify": {key: row.get(key) for key in COMPARED}}
            times.append(time.monotonic() - started)
            memory.append(served.memory())
        return {
            "files": len(files),
            "at_once": at_once,
            "same": len(files) - len(differ),
            "alive": served.alive(),
            "memory": [round(one) for one in memory],
            "files_per_second": round(len(files) * rounds / sum(times), 2),
            "differ": differ,
        }


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("MODEL", help="as any command takes it")
    parser.add_argument("--folder", type=Path, default=root / "../shared/data/zoo", help="whose files are posted")
    parser.add_argument("--at_once", type=int, default=4, help="requests at a time")
    parser.add_argument("--rounds", type=int, default=2, help="how often all files are posted")
    parser.add_argument("--uri", default=None, help="MLflow store")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if shutil.which("uvicorn", path=str(Path(sys.executable).parent)) is None and shutil.which("uvicorn") is None:
        raise SystemExit("uvicorn is not installed")
    found = run(options.MODEL, options.folder, options.at_once, options.rounds, TrackingConfig(uri=options.uri))
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['same']} of {found['files']} files get the answer of classify, {found['at_once']} at once")
        print(f"{found['files_per_second']} files/s; memory {' -> '.join(map(str, found['memory']))} MB")
        print("the server is alive" if found["alive"] else "the server is gone")
        for name, both in found["differ"].items():
            print(f"  {name}: {both}")
    sys.exit(0 if found["alive"] and not found["differ"] else 1)


if __name__ == "__main__":
    main()
