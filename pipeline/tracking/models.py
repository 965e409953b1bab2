"""A checkpoint as an MLflow model that serves itself: built as a folder, kept as a LoggedModel of its run.

No pickle: the model is a Python file (`pipeline/serving.py`) beside the checkpoint and this package's code in one zip
file, which hundreds of requests to a server would be otherwise. Building needs no store, so that the folder can wait
for one like any artifact. `mlflow.pyfunc.save_model` would make the same folder, but it imports what it saves and asks
every installed package for its files, which takes longer than all else that a training records.
"""

from __future__ import annotations

import base64
import json
import platform
import shutil
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.tracking.store import CHECKPOINT_FOLDER, prepare_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature

ROOT = Path(__file__).resolve().parents[1]
"""This package."""
NAME = "model"
"""Of the LoggedModel of a run: `runs:/ID/model` is its address."""
CHECKPOINT = f"artifacts/{CHECKPOINT_FOLDER}"
"""Where in the model's folder its checkpoint lies."""
CODE = "artifacts/pipeline.zip"
SERVING = "serving.py"
EPOCH = (2026, 1, 1, 0, 0, 0)
"""Time of all files in the zip: the same code is the same file."""
REQUIREMENTS = (
    "mlflow", "torch", "torchvision", "opencv-python", "albumentations", "numpy", "pandas", "pillow", "psutil",
    "safetensors", "jsonargparse", "pyyaml", "rich", "filelock", "pyarrow", "scikit-learn", "matplotlib",
)  # fmt: skip
"""Distributions that serving imports; the model asks for the versions that are installed here."""
INPUTS = tuple((name, "string", False) for name in ("video", "content", "name"))
PARAMETERS = (("top_k", "long", 5), ("min_probability", "double", 0.0))
OUTPUTS = {
    "label": (("label", "string", False), ("probability", "double", False), ("top_k", "candidates", False)),
    "frame_label": (("label", "string", False), ("segments", "segments", False)),
    "regression": (("value", "double", False),),
    "frame_regression": (("values", "values", False),),
}
SHARED = (("status", "string", True), ("note", "string", False), ("frames", "long", False),
          ("duration", "double", False), ("model", "string", True))  # fmt: skip
LISTS = {
    "candidates": (("label", "string"), ("probability", "double")),
    "segments": (("start", "double"), ("end", "double"), ("label", "string"), ("probability", "double")),
    "values": (("time", "double"), ("value", "double")),
}


def build(folder: Path, checkpoint: Path, task: str, example: bytes, facts: dict[str, Any]) -> None:
    """Write the model's folder.

    Args:
        folder: made; must not be there yet.
        checkpoint: folder of the checkpoint.
        task: decides what an answer looks like.
        example: a small video file, which becomes the input example.
        facts: kept in the model's metadata and as tags of its LoggedModel: digest, task, ...

    Raises:
        OSError: the disk refuses.
    """
    prepare_environment()
    from mlflow.models import Model
    from mlflow.pyfunc import add_to_model

    shutil.copytree(checkpoint, folder / CHECKPOINT, ignore=shutil.ignore_patterns(".*"))
    _zip_code(folder / CODE)
    shutil.copy(ROOT / SERVING, folder / SERVING)
    model = Model(signature=_signature(task), saved_input_example_info=_write_example(folder, example), metadata=facts)
    _write_requirements(folder)
    artifacts = {name: {"path": path, "uri": path} for name, path in (("checkpoint", CHECKPOINT), ("code", CODE))}
    add_to_model(
        model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_code_path=SERVING,
        artifacts=artifacts,
        streamable=False,
    )
    model.model_size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    model.save(str(folder / "MLmodel"))


def of_run_or_new(client: MlflowClient, run_id: str) -> str:
    """Id of the LoggedModel of a run, made if there is none: a run has one, whatever ended an earlier attempt."""
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    model = of_run(client, run)
    if model is None:
        model = client.create_logged_model(run.info.experiment_id, NAME, run_id, model_type="video-lstm")
    known = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
    if model.model_id not in known:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def finish(client: MlflowClient, model_id: str, facts: dict[str, Any]) -> None:
    """Say that all files of a LoggedModel are there, and what is known of it."""
    client.set_logged_model_tags(model_id, {key: str(value) for key, value in facts.items()})
    client.finalize_logged_model(model_id, "READY")


def send(client: MlflowClient, model_id: str, folder: Path) -> None:
    """The files of a built folder to a LoggedModel, replacing those it has."""
    client.log_model_artifacts(model_id, str(folder))
    finish(client, model_id, facts_of(folder))


def send_alone(client: MlflowClient, experiment_id: str, folder: Path) -> str:
    """Make a built folder a LoggedModel without a run: of a checkpoint whose run this store does not have."""
    model = client.create_logged_model(experiment_id, NAME, model_type="video-lstm")
    send(client, model.model_id, folder)
    return str(model.model_id)


def of_run(client: MlflowClient, run: Run) -> LoggedModel | None:
    """The LoggedModel of a run; None: it has none."""
    found = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    return next((model for model in found if model.name == NAME), None)


def facts_of(folder: Path) -> dict[str, Any]:
    """What `build` was told about the model."""
    return dict(yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["metadata"])


def _signature(task: str) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    def column(name: str, kind: str, required: bool) -> ColSpec:
        if kind in LISTS:
            properties = [Property(field, of) for field, of in LISTS[kind]]
            return ColSpec(Array(Object(properties)), name, required=required)
        return ColSpec(kind, name, required=required)

    return ModelSignature(
        Schema([column(*one) for one in INPUTS]),
        Schema([column(*one) for one in (*OUTPUTS[task], *SHARED)]),
        ParamSchema([ParamSpec(*one) for one in PARAMETERS]),
    )


def _write_example(folder: Path, example: bytes) -> dict[str, Any]:
    """A video in a request, as MLflow keeps it."""
    table = {"columns": ["content"], "data": [[base64.b64encode(example).decode()]]}
    (folder / "input_example.json").write_text(json.dumps(table), encoding="utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": table}), encoding="utf-8")
    return {
        "artifact_path": "input_example.json",
        "pandas_orient": "split",
        "serving_input_path": "serving_input_example.json",
        "type": "dataframe",
    }


def _write_requirements(folder: Path) -> None:
    """requirements.txt, and the same for the two kinds of environments that MLflow can make."""
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            continue
    python = platform.python_version()
    conda = {"name": "mlflow-env", "channels": ["conda-forge"]}
    dependencies = [f"python={python}", "pip", {"pip": pinned}]
    (folder / "requirements.txt").write_text("\n".join(pinned) + "\n", encoding="utf-8")
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda | {"dependencies": dependencies}), encoding="utf-8")
    environment = {"python": python, "build_dependencies": [], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")


def _zip_code(path: Path) -> None:
    """The code of this package, without what only pages need."""
    files = [file for kind in ("*.py", "*.c") for file in sorted(ROOT.rglob(kind))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            name = zipfile.ZipInfo(f"{ROOT.name}/{file.relative_to(ROOT).as_posix()}", EPOCH)
            name.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(name, file.read_bytes(), compresslevel=9)
