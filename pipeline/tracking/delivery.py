"""From entries of an outbox to requests: what each does in the MLflow store, so that doing it twice changes nothing.

A request may have been applied although its answer was lost, and a process may be killed between the answer and the
note of it. So a run is looked for by its key before it is made, the store is asked which steps of a metric it has, and
the rest sets what is set already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.errors import TrackingError
from pipeline.tracking import models, view
from pipeline.tracking.outbox import Entry, Outbox
from pipeline.tracking.store import artifact_root, connect, error_code, hide_password, reported

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY = "training.key"
"""Tag of a run: the training that it records, see `runs.start`."""
NOTE = "mlflow.note.content"
"""Tag that MLflow's page shows first, as Markdown."""
OURS = "<!-- written by video-lstm; remove this line to keep what you write here -->\n"
"""Begins a description that may be replaced."""
PARENT = "mlflow.parentRunId"
OFFLINE = "offline-"
"""Begins the identifier of a run that the store has not seen yet; its key follows."""
BATCH = 100
METRIC_BATCH = 900
"""Tags or parameters, and metrics, of one request, within MLflow's limits of 100, and 1000 altogether."""
FRONT = 100
"""Entries that are looked at together."""
DOUBTFUL = 5
"""Times that a store may call a request bad before it is believed: MLflow says so of a busy database too."""


class RefusedError(TrackingError):
    """The store will never take this entry."""


class Delivery:
    """The way of one run's entries into its store.

    Args:
        uri: of the store.
        run_id: of the run; None: its first entry makes it.

    Attributes:
        run_id: None until the run is made.
        existed: the run was found by its key, not made.
    """

    def __init__(self, uri: str, run_id: str | None) -> None:
        self.uri, self.run_id, self.existed = uri, run_id, False
        self._client: MlflowClient | None = None
        self._params: dict[str, str] | None = None
        self._recorded: set[str] | None = None
        self._steps: dict[str, set[int]] = {}
        self._model_id: str | None = None
        self._called_bad = 0

    def deliver(self, outbox: Outbox) -> int:
        """Send the first entry that waits, and what can go with it in one request.

        Returns:
            How many entries that was; 0: none waits.

        Raises:
            RefusedError: the store will never take the first entry, and works otherwise.
            TrackingError: it takes nothing now.
            OSError: the outbox was removed.
        """
        entries = outbox.front(FRONT)
        if not entries:
            return 0
        group = _together(entries)
        try:
            count = self._several(group) or self._one(entries[0], outbox)
        except TrackingError as error:
            self._forget()
            code = error_code(error)
            self._called_bad = self._called_bad + 1 if code == "BAD_REQUEST" else 0
            removed = "'active' state" in str(error)
            bad = self._called_bad >= DOUBTFUL and self._works()
            if bad or (code == "INVALID_PARAMETER_VALUE" and not removed):
                raise RefusedError(str(error)) from error
            raise
        self._called_bad = 0
        if self.run_id != outbox.about.get("run_id"):
            outbox.note(run_id=self.run_id)
        outbox.mark(entries[count - 1]["n"])
        return count

    def run(self) -> Run:
        """The run as the store has it.

        Raises:
            TrackingError: it does not have it, or does not answer.
        """
        with reported(self.uri):
            return self._store().get_run(self.run_id)

    def _works(self) -> bool:
        """Whether the store answers a request that cannot be wrong."""
        try:
            self.run()
        except TrackingError:
            return False
        return True

    def _forget(self) -> None:
        """Nobody knows what the store took of the last request."""
        self._params, self._recorded, self._steps, self._model_id = None, None, {}, None

    def _store(self, create: bool = False) -> MlflowClient:
        if self._client is None:
            self._client = connect(self.uri, create=create)
        return self._client

    def _several(self, group: list[Entry]) -> int:
        """Send a group; 0 if it is none, or if the store does not like something in it."""
        if len(group) < 2:
            return 0
        try:
            self._metrics_and_tags(group)
        except TrackingError as error:
            if error_code(error) not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            self._forget()
            return 0
        return len(group)

    def _one(self, entry: Entry, outbox: Outbox) -> int:
        match entry["do"]:
            case "create":
                self._create(entry)
            case "reopen":
                self._reopen(entry)
            case "params":
                self._set_params(entry["values"])
            case "metrics" | "tags":
                self._metrics_and_tags([entry])
            case "note":
                self._note(entry["text"])
            case "dataset":
                self._dataset(entry)
            case "file" | "model_file":
                self._send_file(entry, outbox)
            case "model":
                with reported(self.uri):
                    models.finish(self._store(), self._model(), entry["facts"])
            case "finish":
                with reported(self.uri):
                    self._store().set_terminated(self.run_id, entry["status"], entry["time"])
            case other:
                raise RefusedError(f"entry '{other}' is of another version of video-lstm")
        return 1

    def _create(self, entry: Entry) -> None:
        """Make the run, unless it is there."""
        client = self._store(create=True)
        experiment = experiment_of(client, self.uri, entry["experiment"])
        found = self._of_key(experiment, entry["key"])
        self.existed = found is not None
        if found is None:
            tags = entry["tags"] | {KEY: entry["key"]}
            if parent := entry["parent"]:
                tags[PARENT] = self._parent(experiment, parent)
            with reported(self.uri):
                run = client.create_run(experiment, entry["time"], tags, entry["name"])
            found = run.info.run_id
            self._params, self._recorded = {}, set()
        self.run_id = found

    def _of_key(self, experiment: str, key: str) -> str | None:
        with reported(self.uri):
            made = self._store().search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        return str(made[0].info.run_id) if made else None

    def _parent(self, experiment: str, parent: str) -> str:
        """The parent's identifier; that of one that was begun offline is found by its key."""
        if not parent.startswith(OFFLINE):
            return parent
        found = self._of_key(experiment, parent.removeprefix(OFFLINE))
        if found is None:
            raise TrackingError(f"{self.uri}: its parent run is not there yet; sync the folder above it")
        return found

    def _reopen(self, entry: Entry) -> None:
        """RUNNING again; where the surroundings changed, tags say so."""
        before = self.run().data.tags
        with reported(self.uri):
            self._store().update_run(self.run_id, status="RUNNING")
            if "failure" in before:
                self._store().delete_tag(self.run_id, "failure")
        drift = {key: value for key, value in entry["tags"].items() if before.get(key, "") != value}
        self._log(tags={f"drift.{key.removeprefix('mlflow.')}": value for key, value in drift.items()})

    def _set_params(self, values: dict[str, str]) -> None:
        """Parameters cannot change: a new value is a tag."""
        if self._params is None:
            self._params = dict(self.run().data.params)
        known = self._params
        self._log(params={key: value for key, value in values.items() if key not in known})
        changed = {key: value for key, value in values.items() if known.get(key, value) != value}
        self._log(tags={f"drift.{key}": value for key, value in changed.items()})
        self._params = values | known

    def _metrics_and_tags(self, entries: list[Entry]) -> None:
        """One request, if they fit into one."""
        from mlflow.entities import Metric

        tags: dict[str, str] = {}
        metrics = []
        for entry in entries:
            if entry["do"] == "tags":
                tags |= entry["values"]
                continue
            for key, value in entry["values"].items():
                if entry["step"] not in self._known_steps(key):
                    metrics.append(Metric(key, value, entry["time"], entry["step"]))
        self._log(metrics, tags=tags)

    def _known_steps(self, metric: str) -> set[int]:
        """Steps at which the store had the metric before this object sent any."""
        if self._recorded is None:
            self._recorded = set(self.run().data.metrics)
        if metric in self._recorded and metric not in self._steps:
            with reported(self.uri):
                history = self._store().get_metric_history(self.run_id, metric)
            self._steps[metric] = {entry.step for entry in history}
        return self._steps.get(metric, set())

    def _log(
        self, metrics: list[Any] | None = None, params: dict[str, str] | None = None, tags: dict[str, str] | None = None
    ) -> None:
        """In as few requests as MLflow allows."""
        from mlflow.entities import Param, RunTag

        metrics = list(metrics or ())
        some_params = [Param(key, value) for key, value in (params or {}).items()]
        some_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
        with reported(self.uri):
            while metrics or some_params or some_tags:
                some = {"params": some_params[:BATCH]} if some_params else {"tags": some_tags[:BATCH]}
                self._store().log_batch(self.run_id, metrics=metrics[:METRIC_BATCH], **some)
                del metrics[:METRIC_BATCH], (some_params if some_params else some_tags)[:BATCH]

    def _send_file(self, entry: Entry, outbox: Outbox) -> None:
        """Into the artifacts of the run, or of its model."""
        if not (path := outbox.path(entry)).exists():
            raise RefusedError(f"{path} is gone")
        with reported(self.uri):
            if entry["do"] == "file":
                self._store().log_artifact(self.run_id, str(path), entry["place"])
            else:  # alone in its folder
                self._store().log_model_artifacts(self._model(), str(path.parent), entry["place"])

    def _model(self) -> str:
        """Id of the run's model, which is made if there is none."""
        if self._model_id is None:
            self._model_id = models.of_run_or_new(self._store(), str(self.run_id))
        return self._model_id

    def _note(self, text: str) -> None:
        """The description, unless a person wrote one."""
        found = self.run().data.tags.get(NOTE, "")
        if not found or found.startswith(OURS):
            self._log(tags={NOTE: OURS + text})

    def _dataset(self, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        named = {key: entry[key] for key in ("name", "digest", "source_type", "source", "schema", "profile")}
        given = DatasetInput(Dataset(**named), [InputTag("mlflow.data.context", entry["context"])])
        with reported(self.uri):
            self._store().log_inputs(self.run_id, [given])


def _together(entries: list[Entry]) -> list[Entry]:
    """Metrics and tags at the front, as many as fit into one request, or the first entry."""
    group, room = [], {"metrics": METRIC_BATCH, "tags": BATCH}
    for entry in entries:
        if entry["do"] not in room:
            break
        room[entry["do"]] -= len(entry["values"])
        if min(room.values()) < 0:
            break
        group.append(entry)
    return group or entries[:1]


def experiment_of(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, made if there is none; another process may make it at the same moment."""
    from mlflow.exceptions import MlflowException

    with reported(uri):
        found = client.get_experiment_by_name(name)
        if found is None:
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
    if view.TAG not in found.tags:
        with reported(uri):
            client.set_experiment_tag(found.experiment_id, view.TAG, view.view())
    return str(found.experiment_id)


def _artifact_location(uri: str, name: str) -> str | None:
    """An absolute folder beside a SQLite database, wherever later commands run; None: the server's."""
    root = artifact_root(uri)
    if root is None:
        return None
    folder = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return (root / folder).as_uri()
