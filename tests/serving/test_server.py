"""A real server, as `mlflow models serve` starts it, on a model from the registry."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from pipeline.config import TrackingConfig
from pipeline.stages.classify import classify
from pipeline.stages.register import register_model
from pipeline.stages.serve.folder import example_video

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/post_zoo.py"


@pytest.fixture(scope="module")
def posting() -> ModuleType:
    """scripts/post_zoo.py, which starts the server and compares; with ../shared/data/zoo it does so for 147 files."""
    spec = importlib.util.spec_from_file_location("post_zoo", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "a.mp4").write_bytes(example_video())
    return folder


@pytest.fixture(scope="module")
def served(posting: ModuleType, example: Any, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    tracking = TrackingConfig(uri=example.uri, experiment="tests")
    register_model(str(example.folder), "served", "champion", tracking=tracking)
    temporary = tmp_path_factory.mktemp("temporary")
    environment = {
        "VIDEO_LSTM_SERVE_ALLOW": str(shelf),
        "VIDEO_LSTM_SERVE_DEVICE": "cpu",
        "VIDEO_LSTM_SERVE_WORKERS": "2",
        "VIDEO_LSTM_SERVE_TIMEOUT": "120",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(temporary),
        "PYTHONPATH": "",
    }
    with posting.serving("models:/served@champion", example.uri, environment) as served:
        served.temporary = temporary
        yield served


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_every_file_gets_the_answer_of_classify_four_at_once(
    served: Any, posting: ModuleType, predictor: Any, tiny_clips: Path, tmp_path: Path
) -> None:
    files = sorted(path for path in tiny_clips.rglob("*") if path.is_file())[:12]
    for name, data in (("empty.mp4", b""), ("text.avi", b"no video " * 99), ("cut.mp4", example_video()[:-200])):
        files.append(tmp_path / name)
        files[-1].write_bytes(data)
    rows = classify(predictor, [str(path) for path in files], workers=0).table
    answers = posting.posted(served, files, 4)
    assert [a for a, row in zip(answers, rows, strict=True) if not posting.same(a, row)] == []
    assert {row["status"] for row in rows} >= {"ok", "not a video", "empty"}
    before = served.memory()
    for _ in range(3):
        posting.posted(served, files, 4)
    assert served.memory() < before + 100
    assert served.alive()
    assert [path for path in served.temporary.rglob("video-lstm-serve-*/*") if path.is_file()] == []


def test_one_request_may_have_good_and_bad_rows_and_every_row_has_its_answer(served: Any, shelf: Path) -> None:
    content = encoded(example_video())
    status, rows = served.post([
        {"content": content}, {"content": "no base64"}, {"video": str(shelf / "a.mp4")}, {"video": "/etc/passwd"},
        {"video": f"{shelf}/../../etc/passwd"}, {"video": "http://169.254.169.254/"}, {"video": "file:///etc/passwd"},
    ], top_k=1)  # fmt: skip
    assert status == 200
    assert [row["status"] for row in rows] == ["ok", "not readable", "ok"] + ["not readable"] * 4
    assert rows[0] == rows[2] and len(rows[0]["top_k"]) == 1
    status, rows = served.post([{"content": content}], min_probability=1.0)
    assert (status, rows[0]["status"], rows[0]["label"]) == (200, "uncertain", None)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("json", {"inputs": {"content": ["CONTENT"]}}), ("json", {"instances": [{"content": "CONTENT"}]}),
     ("json", {"dataframe_split": {"columns": ["content"], "data": [["CONTENT"]]}}), ("csv", "content\nCONTENT\n")],
)  # fmt: skip
def test_every_form_of_request_that_mlflow_has(served: Any, kind: str, body: Any) -> None:
    text = (body if kind == "csv" else json.dumps(body)).replace("CONTENT", encoded(example_video()))
    headers = {"Content-Type": f"{'text' if kind == 'csv' else 'application'}/{kind}"}
    request = urllib.request.Request(f"{served.address}/invocations", text.encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert json.load(answer)["predictions"][0]["status"] == "ok"


def test_a_request_that_is_none_is_the_callers_fault_and_ends_nothing(served: Any) -> None:
    content = encoded(example_video())
    assert served.post([{"content": content}], top_k=0)[0] == 400
    assert served.post([{"content": content}], min_probability=2.0)[0] == 400
    request = urllib.request.Request(f"{served.address}/invocations", b"{", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 400
    assert served.alive()


def test_the_model_brings_its_own_code(served: Any) -> None:
    """The decoding processes are told where modules are found: first in the model's zip file, not where we are."""
    children = psutil.Process(served.process.pid).children(recursive=True)
    paths = [json.loads(child.cmdline()[-1]) for child in children if "pipeline.data.worker" in str(child.cmdline())]
    assert len(paths) == 2
    assert all(path[0].endswith("artifacts/pipeline.zip") for path in paths)


def test_in_python_it_is_a_function_of_a_table(example: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import pandas as pd

    from pipeline.stages.serve.folder import built

    monkeypatch.setenv("VIDEO_LSTM_SERVE_ALLOW", str(shelf))
    monkeypatch.setenv("VIDEO_LSTM_SERVE_WORKERS", "1")
    monkeypatch.setenv("VIDEO_LSTM_SERVE_DEVICE", "cpu")
    with built(example.folder / "best") as folder:
        copy = shutil.copytree(folder, shelf / "model")
    model = mlflow.pyfunc.load_model(str(copy))
    table = pd.DataFrame({"video": [str(shelf / "a.mp4"), "/etc/passwd"]})
    answers = model.predict(table, params={"top_k": 2})
    assert [answer["status"] for answer in answers] == ["ok", "not readable"]
    assert len(answers[0]["top_k"]) == 2
    model.unwrap_python_model().server.close()
