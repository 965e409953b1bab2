"""MLflow's model registry: a name, its versions, and aliases that point to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking.store import CHECKPOINT_FOLDER, connect, reported, store_uri


def register(
    config: TrackingConfig,
    name: str,
    run_id: str,
    alias: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> str:
    """Make a run's checkpoint a version of a registered model, which is made too if there is none of the name.

    A version is never made twice: one of this run's checkpoint is found again, and gets the alias and the tags.

    Args:
        config: the store.
        name: of the registered model.
        run_id: a finished training.
        alias: to point to this version from now on, such as champion.
        tags: of the version.

    Returns:
        `models:/NAME/VERSION`, which any command takes as MODEL; so is `models:/NAME@ALIAS`.

    Raises:
        TrackingError: no such run, it holds no checkpoint, or the store refuses the name or the alias.
    """
    from mlflow.exceptions import MlflowException

    uri = store_uri(config)
    client = connect(uri, create=False)
    with reported(uri):
        run = client.get_run(run_id)
        if not client.list_artifacts(run_id, CHECKPOINT_FOLDER):
            raise TrackingError(f"run {run_id} holds no checkpoint to register")
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # not runs:/ID/..., for which MLflow would open the default store, whichever that is where it is read
        source = f"{run.info.artifact_uri}/{CHECKPOINT_FOLDER}"
        mine = [found for found in client.search_model_versions(f"run_id = '{run_id}'") if found.name == name]
        version = (mine[0] if mine else client.create_model_version(name, source, run_id)).version
        for key, value in (tags or {}).items():
            client.set_model_version_tag(name, version, key, str(value))
        if alias:
            client.set_registered_model_alias(name, alias, version)
    return f"models:/{name}/{version}"
