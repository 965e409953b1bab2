"""What is added to a finished run later: evaluations of its model, and how often its test split was read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking.runs import MlflowRun
from pipeline.tracking.store import CHECKPOINT_FOLDER, connect, reported, store_uri


class FinishedRun:
    """The run of a model. Its status and its times stay as they are: MLflow takes more of a run that is finished.

    Args:
        config: the store.
        run_id: the run.

    Raises:
        TrackingError: the store cannot be reached or does not have it.
    """

    def __init__(self, config: TrackingConfig, run_id: str) -> None:
        self._uri = store_uri(config)
        self._client = connect(self._uri, create=False)
        with reported(self._uri):
            found = self._client.get_run(run_id)
        if found.info.lifecycle_stage == "deleted":
            raise TrackingError(f"run {run_id} is deleted; restore it with: mlflow runs restore --run-id {run_id}")
        self._run_id = run_id
        self._run = MlflowRun(self._client, self._uri, run_id, resumed=True)

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags."""
        self._run.tags(values)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        self._run.metrics(values, step)
        self._run.send()

    def artifact(self, path: str | Path, artifact_path: str) -> None:
        """Store a file, or what is in a folder, under `artifact_path`."""
        self._run.artifact(path, artifact_path)

    def checkpoint_file(self, name: str) -> str | None:
        """Text of a file in the run's checkpoint; None where it has none of the name."""
        with reported(self._uri), tempfile.TemporaryDirectory() as folder:
            listed = [Path(item.path).name for item in self._client.list_artifacts(self._run_id, CHECKPOINT_FOLDER)]
            if name not in listed:
                return None
            place = self._client.download_artifacts(self._run_id, f"{CHECKPOINT_FOLDER}/{name}", folder)
            return Path(place).read_text(encoding="utf-8")

    def write_checkpoint_file(self, name: str, text: str) -> None:
        """Put a file into the run's checkpoint."""
        self._run.text(text, f"{CHECKPOINT_FOLDER}/{name}")
