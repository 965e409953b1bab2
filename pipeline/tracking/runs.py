"""One training, one MLflow run: what is recorded, and how a resumed training finds its run again.

Resuming keeps the run (Lightning issue 6205 and transformers issue 30563 are about losing it), and of several
processes that train together only the first records anything (MLflow issue 4696).
"""

from __future__ import annotations

import getpass
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.config import TrackingConfig
from pipeline.errors import Preempted, TrackingError
from pipeline.tracking.store import artifact_root, connect, hide_password, reported, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Status = Literal["FINISHED", "FAILED", "KILLED"]

PARAM_LENGTH = 6000
TAG_LENGTH = 8000
BATCH = 100
METRIC_BATCH = 1000
"""MLflow's limits: characters of a parameter and of a tag, entries and metrics of one request."""

KEY = "training.key"
"""Tag of a run: the training that it records, see `start`."""

SEND_SECONDS = 1.0
"""Time between two requests with metrics: epochs on stored features may be shorter than a request. What waits cannot be
lost: a training's rows lie in its state, and are recorded again by the one that goes on from it."""

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "cv2": "opencv-python",
    "albumentations": "albumentations",
    "mlflow": "mlflow",
    "video-lstm": "video-lstm",
}
"""Import name: distribution, for the `version.` tags."""


class Run(Protocol):
    """Where a stage records what it does; `start` gives one.

    Every method raises TrackingError when the store refuses or does not answer.
    """

    @property
    def run_id(self) -> str | None:
        """Identifier in the store, kept in checkpoints to resume the run; None: tracking is off."""

    def params(self, flat: Mapping[str, Any]) -> None:
        """Record parameters. They cannot change: one that differs from an earlier value becomes a tag
        `drift.KEY` with the new value. Longer values than MLflow takes are cut.
        """

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; the last value counts."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at a step; a number that the store has for this step already is not sent again.

        They may wait for `SEND_SECONDS`, so that several epochs share a request; `send` and `finish` end that.
        """

    def send(self) -> None:
        """Send the metrics that wait."""

    def logged_steps(self, metric: str) -> set[int]:
        """Steps at which the store has this metric."""

    def text(self, text: str, artifact_path: str) -> None:
        """Store a text as the artifact file of this name."""

    def artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Store a file, or what is in a folder, under `artifact_path` (None: at the top)."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the run, and send what waits."""


class NoRun:
    """Tracking is off: takes everything, keeps nothing, imports nothing."""

    run_id: str | None = None

    def params(self, flat: Mapping[str, Any]) -> None:
        """Nothing."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def send(self) -> None:
        """Nothing."""

    def logged_steps(self, metric: str) -> set[int]:
        """None."""
        return set()

    def text(self, text: str, artifact_path: str) -> None:
        """Nothing."""

    def artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Nothing."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Nothing."""


class MlflowRun:
    """A run in an MLflow store, always addressed by its id: no current run could be the wrong one.

    Args:
        client: of the store.
        uri: of the store, for messages.
        run_id: an existing run.
        resumed: whether it may have recorded something already.
    """

    def __init__(self, client: MlflowClient, uri: str, run_id: str, resumed: bool) -> None:
        self._client = client
        self._uri = uri
        self._run_id = run_id
        self._resumed = resumed
        self._steps: dict[str, set[int]] = {}
        self._waiting: list[Metric] = []
        self._sent = -math.inf

    @property
    def run_id(self) -> str | None:
        """Identifier of the run in its store."""
        return self._run_id

    def params(self, flat: Mapping[str, Any]) -> None:
        """See `Run.params`."""
        from mlflow.entities import Param

        values = {key: hide_password(str(value))[:PARAM_LENGTH] for key, value in flat.items()}
        with reported(self._uri):
            recorded = self._client.get_run(self._run_id).data.params
            fresh = [Param(key, value) for key, value in values.items() if key not in recorded]
            for first in range(0, len(fresh), BATCH):
                self._client.log_batch(self._run_id, params=fresh[first : first + BATCH])
        changed = {key: value for key, value in values.items() if recorded.get(key, value) != value}
        self.tags({f"drift.{key}": value for key, value in changed.items()})

    def tags(self, values: Mapping[str, Any]) -> None:
        """See `Run.tags`."""
        from mlflow.entities import RunTag

        tags = [RunTag(key, hide_password(str(value))[:TAG_LENGTH]) for key, value in values.items()]
        with reported(self._uri):
            for first in range(0, len(tags), BATCH):
                self._client.log_batch(self._run_id, tags=tags[first : first + BATCH])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """See `Run.metrics`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = {key: float(value) for key, value in values.items() if step not in self._known_steps(key)}
        for key, value in fresh.items():
            self._waiting.append(Metric(key, value, now, step))
            self._known_steps(key).add(step)
        if time.monotonic() - self._sent > SEND_SECONDS:
            self.send()

    def send(self) -> None:
        """See `Run.send`. What the store does not take waits for the next time."""
        self._sent = time.monotonic()
        with reported(self._uri):
            while self._waiting:
                self._client.log_batch(self._run_id, metrics=self._waiting[:METRIC_BATCH])
                del self._waiting[:METRIC_BATCH]

    def logged_steps(self, metric: str) -> set[int]:
        """See `Run.logged_steps`."""
        return set(self._known_steps(metric))

    def text(self, text: str, artifact_path: str) -> None:
        """See `Run.text`."""
        with reported(self._uri):
            self._client.log_text(self._run_id, text, artifact_path)

    def artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """See `Run.artifact`."""
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        with reported(self._uri):
            log(self._run_id, str(path), artifact_path)

    def finish(self, status: Status = "FINISHED") -> None:
        """See `Run.finish`."""
        try:
            self.send()
        finally:
            with reported(self._uri):
                self._client.set_terminated(self._run_id, status)

    def _known_steps(self, metric: str) -> set[int]:
        """Steps of a metric in the store; asked once, and only where a former process may have sent some."""
        if metric not in self._steps:
            self._steps[metric] = set()
            if self._resumed:
                with reported(self._uri):
                    history = self._client.get_metric_history(self._run_id, metric)
                self._steps[metric] = {entry.step for entry in history}
        return self._steps[metric]


def start(
    config: TrackingConfig, name: str, run_id: str | None = None, parent: str | None = None, key: str = ""
) -> Run:
    """Open a run: a new one, or the one of an interrupted training.

    Where tracking is off there is nothing to record to; so it is in every process but the first of a
    distributed training (`torchrun` numbers them in $RANK), or each would make a run of its own.

    Args:
        config: store and experiment.
        name: of a new run; a re-opened one keeps its own.
        run_id: the run to go on with; its status becomes RUNNING again.
        parent: the run under which MLflow shows a new one: a sweep of its trials, a cross-validation of its folds.
        key: names a training whose `run_id` may have been lost; a run that was made with it is gone on with.

    Raises:
        TrackingError: the store cannot be used, or does not have the run.
    """
    if not config.enabled or os.environ.get("RANK", "0") != "0":
        return NoRun()
    uri = store_uri(config)
    client = connect(uri, create=run_id is None)
    if run_id is not None:
        return _reopened(client, uri, run_id)
    experiment = _experiment(client, uri, config.experiment)
    if key:
        with reported(uri):
            made = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        if made:
            return _reopened(client, uri, made[0].info.run_id)
    tags = _source_tags() | ({"mlflow.parentRunId": parent} if parent else {}) | ({KEY: key} if key else {})
    with reported(uri):
        run = client.create_run(experiment, run_name=name, tags=tags)
    return MlflowRun(client, uri, run.info.run_id, resumed=False)


def end_early(run: Run, error: BaseException, preempted: str = "by SIGTERM") -> None:
    """Close a run that an exception ends: KILLED by a stop, else FAILED, with a tag that says why.

    Args:
        run: it.
        error: what ends it; raise it again afterwards.
        preempted: what the tag says of a scheduler's stop.
    """
    tag = {"failure": f"{type(error).__name__}: {error}"[:500]}
    if isinstance(error, Preempted):
        tag = {"preempted": preempted}
    with suppress(TrackingError):  # the store may be what failed; the error itself must come through
        run.tags(tag)
        run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")


def _reopened(client: MlflowClient, uri: str, run_id: str) -> MlflowRun:
    """The run of an interrupted training, RUNNING again; where its surroundings changed, tags say so."""
    try:
        with reported(uri):
            found = client.get_run(run_id)
    except TrackingError as error:
        raise TrackingError(
            f"run {run_id} cannot be resumed: {error}; set --tracking.uri to the store it was recorded in"
        ) from error
    if found.info.lifecycle_stage == "deleted":
        raise TrackingError(f"run {run_id} is deleted; restore it with: mlflow runs restore --run-id {run_id}")
    with reported(uri):
        client.update_run(run_id, status="RUNNING")
        if "failure" in found.data.tags:
            client.delete_tag(run_id, "failure")
    run = MlflowRun(client, uri, run_id, resumed=True)
    now = _source_tags()
    changed = {key: value for key, value in now.items() if found.data.tags.get(key, "") != value}
    run.tags({f"drift.{key.removeprefix('mlflow.')}": value for key, value in changed.items()})
    return run


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, made if there is none; another process may make it at the same moment."""
    from mlflow.exceptions import MlflowException

    with reported(uri):
        if client.get_experiment_by_name(name) is None:
            try:
                client.create_experiment(name, artifact_location=_artifact_location(uri, name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        found = client.get_experiment_by_name(name)
    if found is None:
        raise TrackingError(f"{hide_password(uri)}: does not show experiment '{name}' after making it")
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"experiment '{name}' is deleted; choose another --tracking.experiment, or restore it with: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _artifact_location(uri: str, name: str) -> str | None:
    """An absolute folder beside a SQLite database, wherever later commands run; None: the server's."""
    root = artifact_root(uri)
    if root is None:
        return None
    folder = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return (root / folder).as_uri()


def _source_tags() -> dict[str, str]:
    """Who ran what, from which commit, with which versions."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    tags = {
        "mlflow.source.name": hide_password(command)[:TAG_LENGTH],
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "version.python": platform.python_version(),
    }
    for name, distribution in PACKAGES.items():
        try:
            tags[f"version.{name}"] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return tags


def _user() -> str:
    """Login name; containers may run under a number that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _commit() -> str | None:
    """Commit of the current folder's repository; None without git, repository or commit."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
