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
from pipeline.tracking.store import connect, hide_password, reported, store_uri
from pipeline.tracking.surroundings import TAG_LENGTH

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVALUATIONS = "evaluations"
"""Artifact folder of a run: a report each, and how often the test split was read."""
READINGS_PLACE = f"{EVALUATIONS}/readings.json"


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

    def readings(self) -> str | None:
        """What `write_readings` put there last, or the training; None where the run has none."""
        with reported(self._uri), tempfile.TemporaryDirectory() as folder:
            listed = [item.path for item in self._client.list_artifacts(self._run_id, EVALUATIONS)]
            if READINGS_PLACE not in listed:
                return None
            return Path(self._client.download_artifacts(self._run_id, READINGS_PLACE, folder)).read_text("utf-8")

    def write_readings(self, text: str) -> None:
        """How often the test split was read, as an artifact; not within the model, which is as it was registered."""
        with reported(self._uri):
            self._client.log_text(self._run_id, text, READINGS_PLACE)


def _of_key(client: MlflowClient, key: str) -> str:
    """The identifier that a run got in the store, which was begun offline."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    made = client.search_runs(experiments, f"tags.`{KEY}` = '{key}'", max_results=1)
    if not made:
        raise TrackingError("the run was begun offline and is not in the store yet; run: video-lstm sync")
    return str(made[0].info.run_id)
