"""What is added to a finished run later: evaluations of its model, and how often its test split was read."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking.delivery import KEY, OFFLINE
from pipeline.tracking.models import CHECKPOINT, of_run
from pipeline.tracking.store import CHECKPOINT_FOLDER, connect, hide_password, reported, store_uri
from pipeline.tracking.surroundings import TAG_LENGTH

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


class FinishedRun:
    """The run of a model. Its status and its times stay as they are: MLflow takes more of a run that is finished.

    What is added is sent at once, and not kept in an outbox: the same numbers lie in the report's folder.

    Args:
        config: the store.
        run_id: the run; of one that was begun offline, as its checkpoint has it.

    Raises:
        TrackingError: the store cannot be reached or does not have it.
    """

    def __init__(self, config: TrackingConfig, run_id: str) -> None:
        self._uri = store_uri(config)
        self._client = connect(self._uri, create=False)
        with reported(self._uri):
            if run_id.startswith(OFFLINE):
                run_id = _of_key(self._client, run_id.removeprefix(OFFLINE))
            found = self._client.get_run(run_id)
        if found.info.lifecycle_stage == "deleted":
            raise TrackingError(f"run {run_id} is deleted; restore it with: mlflow runs restore --run-id {run_id}")
        self._run_id = run_id

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags."""
        with reported(self._uri):
            for key, value in values.items():
                self._client.set_tag(self._run_id, key, hide_password(str(value))[:TAG_LENGTH])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with reported(self._uri):
            numbers = [Metric(key, float(value), now, step) for key, value in values.items()]
            self._client.log_batch(self._run_id, metrics=numbers)

    def artifacts(self, folder: str | Path, artifact_path: str) -> None:
        """Store what is in a folder under `artifact_path`."""
        with reported(self._uri):
            self._client.log_artifacts(self._run_id, str(folder), artifact_path)

    def checkpoint_file(self, name: str) -> str | None:
        """Text of a file in the checkpoint of the run's model; None where it has none of the name."""
        with reported(self._uri), tempfile.TemporaryDirectory() as folder:
            model = self._model()
            if model is None:
                listed, place = self._client.list_artifacts(self._run_id, CHECKPOINT_FOLDER), self._old_place()
            else:
                listed = self._client.list_logged_model_artifacts(model.model_id, CHECKPOINT)
                place = f"{model.artifact_location}/{CHECKPOINT}"
            if name not in [Path(item.path).name for item in listed]:
                return None
            from mlflow.artifacts import download_artifacts

            found = download_artifacts(artifact_uri=f"{place}/{name}", dst_path=folder, tracking_uri=self._uri)
            return Path(found).read_text(encoding="utf-8")

    def write_checkpoint_file(self, name: str, text: str) -> None:
        """Put a file into the checkpoint of the run's model."""
        with reported(self._uri), tempfile.TemporaryDirectory() as folder:
            model = self._model()
            if model is None:
                self._client.log_text(self._run_id, text, f"{CHECKPOINT_FOLDER}/{name}")
                return
            (Path(folder) / name).write_text(text, encoding="utf-8")
            self._client.log_model_artifacts(model.model_id, folder, CHECKPOINT)

    def _model(self) -> LoggedModel | None:
        return of_run(self._client, self._client.get_run(self._run_id))

    def _old_place(self) -> str:
        """The checkpoint of a run of an earlier version, which has no model."""
        return f"{self._client.get_run(self._run_id).info.artifact_uri}/{CHECKPOINT_FOLDER}"


def _of_key(client: MlflowClient, key: str) -> str:
    """The identifier that a run got in the store, which was begun offline."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    made = client.search_runs(experiments, f"tags.`{KEY}` = '{key}'", max_results=1)
    if not made:
        raise TrackingError("the run was begun offline and is not in the store yet; run: video-lstm sync")
    return str(made[0].info.run_id)
