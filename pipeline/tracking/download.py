"""Fetching a model from the store by its address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking.models import CHECKPOINT, NAME, of_run
from pipeline.tracking.store import CHECKPOINT_FOLDER, LOCKED, connect, error_code, reported, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

FORMS = "runs:/ID, runs:/ID/FOLDER, models:/NAME@ALIAS, models:/NAME/VERSION or models:/MODEL_ID"


@dataclass(frozen=True)
class Found:
    """What an address stands for.

    Attributes:
        source: where the checkpoint lies, for MLflow's artifact functions.
        run_id: the run it came from; None: none, or none that is known.
        model_id: the LoggedModel; None: a checkpoint of an earlier version, without one.
        version: its number, where it is a registered one.
    """

    source: str
    run_id: str | None = None
    model_id: str | None = None
    version: str | None = None


def download(uri: str, destination: str | Path, config: TrackingConfig | None = None) -> Path:
    """Fetch a checkpoint from the store.

    Args:
        uri: `runs:/ID` or `runs:/ID/model` (the run's model), `runs:/ID/FOLDER` (among its artifacts),
            `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/MODEL_ID`.
        destination: folder to download into; made if needed.
        config: which store; None: the default one.

    Returns:
        The downloaded file or folder, inside `destination`.

    Raises:
        TrackingError: not such a URI, nothing there, or the store cannot be reached.
    """
    store = store_uri(config or TrackingConfig())
    found = find(uri, config)
    from mlflow.artifacts import download_artifacts

    Path(destination).mkdir(parents=True, exist_ok=True)
    with _sought(uri, store):
        return Path(download_artifacts(artifact_uri=found.source, dst_path=str(destination), tracking_uri=store))


def find(uri: str, config: TrackingConfig | None = None) -> Found:
    """What an address stands for.

    Raises:
        TrackingError: not such a URI, nothing there, or the store cannot be reached.
    """
    run = re.fullmatch(r"runs:/([^/]+)(?:/(.*))?", uri.rstrip("/"))
    model = re.fullmatch(r"models:/(?:(m-[0-9a-f]{32})|([^/@]+)(?:@([^/@]+)|/(\d+)))", uri)
    if run is None and model is None:
        raise TrackingError(f"'{uri}' names no model; write {FORMS}")
    store = store_uri(config or TrackingConfig())
    client = connect(store, create=False)
    with _sought(uri, store):
        if run is not None:
            return _in_run(client, run[1], run[2] or "")
        assert model is not None
        if model[1]:
            return _logged(client, model[1])
        return _version(client, model[2], model[3], model[4])


@contextmanager
def _sought(uri: str, store: str) -> Iterator[None]:
    """What fails here was not found, unless the server keeps it from this user."""
    try:
        with reported(store):
            yield
    except TrackingError as error:
        if error_code(error) in LOCKED:
            raise
        raise TrackingError(f"{uri}: not found ({error})") from error


def _in_run(client: MlflowClient, run_id: str, folder: str) -> Found:
    """A run's model; or, if it is named or there is no model, a folder of its artifacts."""
    run = client.get_run(run_id)
    model = of_run(client, run) if folder in ("", NAME, CHECKPOINT_FOLDER) else None
    if model is not None:
        return _logged(client, model.model_id)
    place = folder or CHECKPOINT_FOLDER
    return Found(f"{str(run.info.artifact_uri).rstrip('/')}/{place}", run_id)


def _logged(client: MlflowClient, model_id: str) -> Found:
    model = client.get_logged_model(model_id)
    return Found(f"{model.artifact_location}/{CHECKPOINT}", model.source_run_id, model_id)


def _version(client: MlflowClient, name: str, alias: str | None, version: str | None) -> Found:
    """A registered model.

    Its version is looked up with our client, not by MLflow's own `models:/` download: that one opens, and makes, the
    default store of the current folder beside the store it was told.
    """
    if alias:
        version = client.get_model_version_by_alias(name, alias).version
    run_id = client.get_model_version(name, str(version)).run_id or None
    source = client.get_model_version_download_uri(name, str(version))
    model_id = model_id_in(source)
    return Found(f"{source}/{CHECKPOINT}" if model_id else source, run_id, model_id, str(version))


def model_id_in(source: str) -> str | None:
    """The LoggedModel whose artifacts lie at a place: not every store tells it of a version."""
    found = re.search(r"(?:^|/)(m-[0-9a-f]{32})(?:/|$)", source)
    return found[1] if found else None
