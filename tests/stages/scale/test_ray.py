"""A cluster answers as one machine does, whatever dies in it. Two nodes with a core each, on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed")

from pipeline.config import RayConfig
from pipeline.errors import ConfigError
from pipeline.report.tables import valid_text
from pipeline.stages.classify import classify
from pipeline.stages.predict import Predictor
from pipeline.stages.scale import session
from pipeline.stages.scale.predictor import RayPredictor, _kind, ray_predictor
from tests.conftest import Example
from tests.hostile import hostile_environment

ROOT = Path(__file__).resolve().parents[3]
Row = dict[str, Any]


def plain(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def script() -> Any:
    """`scripts/kill_ray.py`."""
    sys.path.insert(0, str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("kill_ray", ROOT / "scripts" / "kill_ray.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "scripts"))
    return module


@pytest.fixture(scope="module", autouse=True)
def armed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Files with the word crash in their names crash their decoder, here and in every process of the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hostile_environment(tmp_path_factory.mktemp("hostile")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def address(script: Any, armed: None) -> Iterator[str]:
    with script.two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def on_cluster(address: str, example: Example) -> Iterator[RayPredictor]:
    with ray_predictor(str(example.folder), RayConfig(address, files=4)) as found:
        yield found


@pytest.fixture(scope="module")
def archive(tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files, one that crashes the decoder, and one whose name is no text."""
    folder = tmp_path_factory.mktemp("archive")
    for path in sorted(tiny_clips.rglob("*.*")):
        (folder / path.name).write_bytes(path.read_bytes())
    clip = next(path for path in folder.iterdir() if path.suffix == ".avi")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.avi")).write_bytes(clip.read_bytes())
    (folder / "v_red.crash.avi").write_bytes(clip.read_bytes())
    return folder


@pytest.fixture(scope="module")
def expected(predictor: Predictor, archive: Path, armed: None) -> list[Row]:
    return plain(classify(predictor, archive, workers=2).table)


def test_two_nodes_give_the_rows_of_one_machine_in_their_order(
    on_cluster: RayPredictor,
    predictor: Predictor,
    archive: Path,
    expected: list[Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert on_cluster.cluster.cpus == 2
    monkeypatch.chdir(archive)
    found = classify(on_cluster, ".", tmp_path / "labels")
    assert plain(found.table) == plain(classify(predictor, ".", workers=2).table)
    assert {row["status"] for row in found.table} == {"ok", "not a video", "decoder crashed"}
    parts = pd.read_parquet(tmp_path / "labels")
    assert parts.label.fillna("").tolist() == [row.get("label", "") for row in expected]


def test_workers_killed_in_the_middle_cost_no_row(
    script: Any, on_cluster: RayPredictor, archive: Path, expected: list[Row]
) -> None:
    """One that decodes, and then an actor with the model."""
    killed: list[str] = []

    def kill() -> None:
        for victim, name in script.VICTIMS.items():
            deadline = time.monotonic() + 60
            while victim != "command" and time.monotonic() < deadline:
                if hit := script.workers(name):
                    os.kill(hit[0].pid, signal.SIGKILL)
                    killed.append(victim)
                    break
                time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    answers = list(on_cluster.predict(named(archive)))
    killer.join()
    assert killed == ["decoding", "model"]
    assert [one.path for one in answers] == named(archive)
    sure = [None if one.probabilities is None else float(one.probabilities.max()) for one in answers]
    assert sure == [row.get("probability") for row in expected]


def named(archive: Path) -> list[str]:
    from pipeline.stages.find import find_files

    return find_files([archive])


def test_the_command_killed_in_the_middle_goes_on_and_loses_nothing(
    script: Any,
    address: str,
    on_cluster: RayPredictor,
    predictor: Predictor,
    example: Example,
    archive: Path,
    tmp_path: Path,
    expected: list[Row],
) -> None:
    """One of the three trials of scripts/kill_ray.py. One machine could go on as well: the engine has the same name."""
    out = tmp_path / "rows.jsonl"
    rows = script.killed("command", script.started(example.folder, archive, out, address), out)
    assert 0 < rows < len(expected)
    found = classify(on_cluster, archive, out)
    assert plain(found.table) == expected
    assert on_cluster.engine.name == predictor.engine.name


def test_the_command_starts_a_cluster_of_its_own_that_nobody_else_can_reach(
    example: Example, archive: Path, expected: list[Row], tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pipeline", "classify", str(example.folder), str(archive), "--out", str(out),
            "--engine", "ray", "--json",
        ],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    heard: set[str] = set()
    while process.poll() is None:
        heard |= listening(process.pid)
        time.sleep(0.5)
    said, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert json.loads(said)["rows"] == len(expected)
    rows = plain([json.loads(line) for line in out.read_text().splitlines()])
    said_alike = [{"path": valid_text(row["path"])} | {k: v for k, v in row.items() if k != "path"} for row in expected]
    assert [{k: v for k, v in row.items() if v is not None} for row in rows] == said_alike
    assert heard and heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert "Traceback" not in complaints and "ray" not in complaints.lower()


def listening(pid: int) -> set[str]:
    """Addresses on which a process and its children wait for connections."""
    found = set()
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return set()
    for process in family:
        try:
            found |= {one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue
    return found


def test_without_the_extra_the_command_that_brings_it_is_named(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "video-lstm\[ray\]"'), ray_predictor(example.folder):
        pass


@pytest.mark.parametrize(
    ("device", "precision", "gpus", "found"),
    [
        ("auto", "fp32", 0, "cpu"),
        ("auto", "bf16", 4, "cuda"),
        ("cpu", "fp32", 4, "cpu"),
        ("cuda", "fp32", 0, "has no GPU"),
        ("auto", "bf16", 0, "bf16 is for GPUs"),
        ("cuda:1", "fp32", 4, "chooses the GPU itself"),
    ],
)
def test_the_device_is_one_that_the_cluster_has(device: str, precision: Any, gpus: float, found: str) -> None:
    cluster = session.Cluster(None, 8, gpus)
    if found in ("cpu", "cuda"):
        assert _kind(device, precision, cluster) == found
        return
    with pytest.raises(ConfigError, match=found):
        _kind(device, precision, cluster)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "ray", "--ray.address", "127.0.0.1:9"], "no Ray cluster of this version answers at 127.0.0.1:9"),
        (["--ray.models", "2"], "--ray options are for --engine ray; the engine is torch"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    options: list[str], message: str, example: Example, archive: Path
) -> None:
    command = [sys.executable, "-m", "pipeline", "classify", str(example.folder), str(archive), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_scheduler_s_stop_stays_what_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with session.own_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before
