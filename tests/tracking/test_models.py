from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import TrackingConfig
from pipeline.tracking import models
from pipeline.tracking.runs import start
from pipeline.tracking.store import connect, store_uri

TASKS = ("label", "frame_label", "regression", "frame_regression")


def built(folder: Path, task: str = "label", text: str = "{}") -> Path:
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint/model.json").write_text(text)
    models.build(folder / "model", folder / "checkpoint", task, b"a video", {"task": task, "digest": "abc"})
    return folder / "model"


def test_a_run_has_one_model_with_everything_in_it(store: TrackingConfig, tmp_path: Path) -> None:
    run = start(store, "trained", folder=tmp_path / "run")
    run.model(built(tmp_path / "first", text="first"))
    run.model(built(tmp_path / "second", text="second"))
    run.finish()
    client = connect(store_uri(store))
    recorded = client.get_run(str(run.run_id))
    model = models.of_run(client, recorded)
    assert model is not None and str(model.status) == "READY" and model.model_type == "video-lstm"
    assert [output.model_id for output in recorded.outputs.model_outputs] == [model.model_id]
    assert {"task": "label", "digest": "abc"}.items() <= model.tags.items()
    place = Path(
        model.artifact_location.removeprefix("file://").replace("%C3%B6", "ö").replace("%20", " ").replace("%25", "%")
    )
    assert (place / models.CHECKPOINT / "model.json").read_text() == "second"
    assert (place / "MLmodel").exists() and (place / "serving.py").exists()


@pytest.mark.parametrize("task", TASKS)
def test_the_folder_is_what_mlflow_makes_of_a_model_from_code(tmp_path: Path, task: str) -> None:
    from mlflow.models import Model

    folder = built(tmp_path, task)
    model = Model.load(str(folder))
    assert [column.name for column in model.signature.inputs.inputs] == ["video", "content", "name"]
    assert [one.name for one in model.signature.params.params] == ["top_k", "min_probability"]
    names = {column.name for column in model.signature.outputs.inputs}
    assert {"status", "note", "model"} <= names and names & {"label", "value", "values"}
    flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert flavor["loader_module"] == "mlflow.pyfunc.loaders.code_model" and "python_model" not in flavor  # no pickle
    assert not any(path.suffix in (".pkl", ".pickle", ".pt", ".pth") for path in folder.rglob("*"))
    example = json.loads((folder / "serving_input_example.json").read_text())["dataframe_split"]
    assert base64.b64decode(example["data"][0][0]) == b"a video"
    assert str(tmp_path) not in (folder / "MLmodel").read_text()


def test_the_code_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    folders = [built(tmp_path / name) for name in ("one", "two")]
    first, second = (folder / models.CODE for folder in folders)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as packed:
        names = set(packed.namelist())
    here = {f"pipeline/{path.relative_to(models.ROOT).as_posix()}" for path in models.ROOT.rglob("*.py")}
    assert here <= names and "pipeline/model/cells/lstm_step.c" in names
    assert first.stat().st_size < 700_000  # of a checkpoint's megabytes a fraction


def test_requirements_name_versions(tmp_path: Path) -> None:
    lines = (built(tmp_path) / "requirements.txt").read_text().splitlines()
    assert {"mlflow", "torch", "opencv-python", "albumentations", "safetensors"} <= {
        line.partition("==")[0] for line in lines
    }
    assert all("==" in line and "+" not in line for line in lines)


def test_a_run_from_before_the_models_is_still_found(store: TrackingConfig, tmp_path: Path) -> None:
    from pipeline.tracking.download import find

    run = start(store, "old", folder=tmp_path / "run")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/model.json").write_text("{}")
    run.artifact(tmp_path / "checkpoint", "checkpoint")
    run.finish()
    found = find(f"runs:/{run.run_id}", store)
    assert (found.model_id, found.run_id) == (None, run.run_id) and found.source.endswith("/artifacts/checkpoint")


def test_a_model_waits_for_its_store_like_anything_else(tmp_path: Path, store: TrackingConfig) -> None:
    from dataclasses import replace

    run: Any = start(replace(store, offline=True), "offline", folder=tmp_path / "run")
    run.model(built(tmp_path / "model"))
    run.finish()
    entries = [json.loads(line) for line in next((tmp_path / "run").rglob("journal.jsonl")).read_text().splitlines()]
    assert [entry["do"] for entry in entries if "do" in entry][-2:] == ["model", "finish"]
    assert sum(entry.get("do") == "model_file" for entry in entries) == 9
