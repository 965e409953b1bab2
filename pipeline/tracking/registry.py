"""MLflow's model registry: a name, its versions, and aliases that point to one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking.delivery import experiment_of
from pipeline.tracking.download import Found, find, model_id_in
from pipeline.tracking.models import of_run, of_run_or_new, send, send_alone
from pipeline.tracking.store import CHECKPOINT_FOLDER, connect, reported, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

COMMIT = "mlflow.source.git.commit"
VERSIONS = "mlflow.modelVersions"
"""Tag of a LoggedModel with its versions, from which MLflow's page makes links."""


def register(
    config: TrackingConfig,
    name: str,
    run_id: str,
    alias: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> str:
    """Make a run's model a version of a registered model, which is made too if there is none of the name.

    A version is never made twice: one of this run's model is found again, and gets the alias and the tags.

    Args:
        config: the store.
        name: of the registered model.
        run_id: a finished training.
        alias: to point to this version from now on, such as champion.
        tags: of the version.

    Returns:
        `models:/NAME/VERSION`, which any command takes as MODEL; so is `models:/NAME@ALIAS`.

    Raises:
        TrackingError: no such run, it holds no model, or the store refuses the name or the alias.
    """
    uri = store_uri(config)
    client = connect(uri, create=False)
    with reported(uri):
        run = client.get_run(run_id)
        model = of_run(client, run)
        if model is None and not client.list_artifacts(run_id, CHECKPOINT_FOLDER):
            raise TrackingError(f"run {run_id} holds no checkpoint to register")
        known = {**_commit(run), **(tags or {})}
        if model is not None:
            version = _version(client, name, model.artifact_location, run_id, model.model_id, known)
        else:  # of an earlier version of this program
            version = _version(client, name, f"{run.info.artifact_uri}/{CHECKPOINT_FOLDER}", run_id, None, known)
        if alias:
            client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}/{version.version}"


def register_folder(
    config: TrackingConfig, name: str, folder: Path, run_id: str | None, model_id: str | None, tags: Mapping[str, Any]
) -> tuple[str, str]:
    """The same for a model that may not be in the store yet: its built folder becomes a LoggedModel first.

    Args:
        config: the store, which is made if it is a SQLite file that does not exist yet.
        name: of the registered model.
        folder: of `models.build`.
        run_id: the run it comes from; None: none that the store has.
        model_id: the LoggedModel that it is already; None: it has to be made, of its own where the run has another.
        tags: of the version.

    Returns:
        Version and id of the LoggedModel.

    Raises:
        TrackingError: the store refuses the name, or does not answer.
    """
    uri = store_uri(config)
    client = connect(uri)
    with reported(uri):
        run = client.get_run(run_id) if run_id else None
        if model_id is None:
            if run is not None and of_run(client, run) is None:
                model_id = of_run_or_new(client, run.info.run_id)
                send(client, model_id, folder)
            else:
                model_id = send_alone(client, experiment_of(client, uri, config.experiment), folder)
        known = {**(_commit(run) if run else {}), **tags}
        place = client.get_logged_model(model_id).artifact_location
        found = _version(client, name, place, run_id, model_id, known)
    return str(found.version), model_id


def known_model(config: TrackingConfig, address: str, run_id: str | None) -> tuple[str | None, str | None]:
    """The run and the LoggedModel of a MODEL, as far as the store has them.

    Args:
        config: the store.
        address: runs:/... or models:/..., else a folder.
        run_id: what the checkpoint in the folder says it was trained in.

    Raises:
        TrackingError: an address of nothing, or the store cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    uri = store_uri(config)
    if address.startswith(("runs:/", "models:/")):
        found = find(address, config)
        return found.run_id, found.model_id
    client = connect(uri)
    if run_id is None:
        return None, None
    with reported(uri):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None, None  # recorded elsewhere
        model = of_run(client, run)
    return run_id, model.model_id if model else None


def model_tags(config: TrackingConfig, model_id: str) -> dict[str, str]:
    """Tags of a LoggedModel.

    Raises:
        TrackingError: there is none of the id, or the store cannot be reached.
    """
    uri = store_uri(config)
    with reported(uri):
        return dict(connect(uri, create=False).get_logged_model(model_id).tags)


def holder(config: TrackingConfig, name: str, alias: str) -> Found | None:
    """The version that has an alias; None: none has.

    Raises:
        TrackingError: MLflow keeps the alias for itself, or the store cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    if re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE):  # known before anything is registered
        raise TrackingError(f"alias '{alias}' is reserved by MLflow; choose another, such as champion")
    uri = store_uri(config)
    client = connect(uri)
    with reported(uri):
        try:
            client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if "not found" not in str(error):  # MLflow calls a missing alias, like a wrong name, an invalid parameter
                raise
            return None
    return find(f"models:/{name}@{alias}", config)


def promote(
    config: TrackingConfig, name: str, version: str, alias: str | None, tags: Mapping[str, Any], beside: Path | None
) -> None:
    """Note what a comparison came to with a version and its model, and give it an alias.

    Args:
        config: the store.
        name: of the registered model.
        version: its number.
        alias: to point to it from now on; None: none does.
        tags: of the version.
        beside: folder of a comparison, kept among the model's artifacts as `comparisons/NAME-VERSION`; None: none.

    Raises:
        TrackingError: the store refuses the alias, or cannot be reached.
    """
    uri = store_uri(config)
    client = connect(uri, create=False)
    with reported(uri):
        found = client.get_model_version(name, version)
        if beside is not None:
            client.log_model_artifacts(_model_id(found), str(beside), f"comparisons/{name}-{version}")
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, str(value))
        if alias:
            client.set_registered_model_alias(name, alias, version)


def _version(
    client: MlflowClient, name: str, source: str, run_id: str | None, model_id: str | None, tags: Mapping[str, Any]
) -> ModelVersion:
    """The version of a source, made if there is none, with these tags."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    quoted = name.replace("'", "''")
    mine = [one for one in client.search_model_versions(f"name = '{quoted}'") if _same(one, run_id, model_id)]
    # The source is a place and not runs:/ID or models:/ID, which MLflow would look up in the default store, whichever
    # that is where it is read. A server wants to know the model to which the place belongs; a database would look it
    # up in the default store too.
    served = str(client.tracking_uri).startswith(("http://", "https://"))
    version = (
        mine[0] if mine else client.create_model_version(name, source, run_id, model_id=model_id if served else None)
    )
    for key, value in tags.items():
        client.set_model_version_tag(name, version.version, key, str(value))
    if model_id and not mine:
        _link(client, model_id, name, str(version.version))
    return version


def _link(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Let MLflow's page lead from a LoggedModel to its versions."""
    made = json.loads(client.get_logged_model(model_id).tags.get(VERSIONS, "[]"))
    fresh = {"name": name, "version": version}
    if not any(str(one.get("version")) == version and one.get("name") == name for one in made):
        client.set_logged_model_tags(model_id, {VERSIONS: json.dumps([*made, fresh])})


def _same(version: ModelVersion, run_id: str | None, model_id: str | None) -> bool:
    """Whether a version is of this model, or of a run of an earlier version of this program, which has none."""
    if model_id:
        return _model_id(version) == model_id
    return bool(run_id) and version.run_id == run_id


def _model_id(version: ModelVersion) -> str | None:
    return version.model_id or model_id_in(str(version.source))


def _commit(run: Run) -> dict[str, str]:
    """The commit that a model was trained at."""
    commit = run.data.tags.get(COMMIT)
    return {"git.commit": commit} if commit else {}
