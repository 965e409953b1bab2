"""One training, one MLflow run: what is recorded, and how a resumed training finds its run again.

Resuming keeps the run (Lightning issue 6205 and transformers issue 30563 are about losing it), and of several
processes that train together only the first records anything (MLflow issue 4696). Whatever is recorded goes to an
outbox on disk first and from there, beside the training, to the store: see `outbox.py`, `sender.py`, `delivery.py`.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.config import TrackingConfig
from pipeline.errors import Preempted, TrackingError, UserError
from pipeline.tracking.delivery import KEY, OFFLINE, Delivery
from pipeline.tracking.models import facts_of
from pipeline.tracking.outbox import ELSEWHERE, NAME, Outbox, place_of
from pipeline.tracking.run import NoRun, Run, Status
from pipeline.tracking.sender import SEND_SECONDS, Sender, tell
from pipeline.tracking.store import hide_password, is_away, reason, store_uri
from pipeline.tracking.surroundings import TAG_LENGTH, source_tags

__all__ = ["KEY", "SEND_SECONDS", "MlflowRun", "NoRun", "Run", "Status", "end_early", "start"]

PARAM_LENGTH = 6000
"""MLflow's limit: characters of a parameter."""
FAILURE = "failure.txt"
"""Artifact with the traceback of a run that a bug ended."""
PATIENCE = {"FINISHED": (60.0, 10.0), "FAILED": (15.0, 5.0), "KILLED": (15.0, 5.0)}
"""Seconds that the end of a run waits for its store: while no request comes to an end, and for one that takes nothing
to come back. A scheduler that stops a training gives it about half a minute."""


class MlflowRun:
    """A run in an MLflow store, always addressed by its id: no current run could be the wrong one.

    Args:
        outbox: where what is recorded waits.
        delivery: into the store.
        key: names the run where the store has not made it yet.
        offline: nothing is sent but by `video-lstm sync`.
    """

    def __init__(self, outbox: Outbox, delivery: Delivery, key: str, offline: bool = False) -> None:
        self._outbox, self._delivery, self._key, self._offline = outbox, delivery, key, offline
        self._sender = Sender(outbox, delivery)
        self._steps: dict[str, set[int]] = {}
        """Of each metric, those that need not be recorded again; what the store has, `Delivery` knows."""
        for entry in outbox.front(outbox.waiting):
            if entry["do"] == "metrics":
                self._note_steps(entry["values"], entry["step"])
        self._mutex = threading.Lock()

    @property
    def run_id(self) -> str | None:
        """Identifier of the run in its store; of one that is begun offline, `offline-` and its key."""
        return self._delivery.run_id or OFFLINE + self._key

    def params(self, flat: Mapping[str, Any]) -> None:
        """See `Run.params`."""
        self._append("params", values={key: _plain(value, PARAM_LENGTH) for key, value in flat.items()})

    def tags(self, values: Mapping[str, Any]) -> None:
        """See `Run.tags`."""
        if values:
            self._append("tags", values={key: _plain(value, TAG_LENGTH) for key, value in values.items()})

    def note(self, text: str) -> None:
        """See `Run.note`."""
        self._append("note", text=_plain(text, TAG_LENGTH))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """See `Run.metrics`."""
        with self._mutex:
            fresh = {key: float(value) for key, value in values.items() if step not in self._steps.get(key, ())}
            self._note_steps(fresh, step)
        if fresh:
            self._append("metrics", values=fresh, step=int(step), time=_now())

    def dataset(
        self, name: str, digest: str, source: str, context: str, schema: str | None = None, profile: str | None = None
    ) -> None:
        """See `Run.dataset`."""
        named = {"name": name, "digest": digest[:36], "source_type": "local", "source": hide_password(source)}
        self._append("dataset", **named, context=context, schema=schema, profile=profile)

    def text(self, text: str, artifact_path: str) -> None:
        """See `Run.text`."""
        place, _, name = artifact_path.rpartition("/")
        self._append_file(hide_password(text), name, place or None)

    def artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """See `Run.artifact`."""
        path = Path(path)
        files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
        for file in files:
            below = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
            places = [place for place in (artifact_path, below) if place and place != "."]
            self._append_file(file, file.name, "/".join(places) or None)

    def model(self, folder: str | Path) -> None:
        """See `Run.model`."""
        folder = Path(folder)
        for file in sorted(found for found in folder.rglob("*") if found.is_file()):
            below = file.parent.relative_to(folder).as_posix()
            self._append_file(file, file.name, None if below == "." else below, do="model_file")
        self._append("model", facts=facts_of(folder))

    def send(self) -> None:
        """See `Run.send`."""
        if self._offline or not self._sender.flush(*PATIENCE["FINISHED"]):
            raise TrackingError(self._left())

    def finish(self, status: Status = "FINISHED") -> None:
        """See `Run.finish`."""
        self._append("finish", status=status, time=_now())
        if not self._offline and self._sender.flush(*PATIENCE[status]):
            self._sender.end()
            self._close()
            return
        self._outbox.settle()
        tell(self._left())
        if self._offline:
            self._close()
        else:
            self._sender.then(self._close)  # in a process that goes on, this does too

    def go_on(self) -> None:
        """Mark the run as running again."""
        self._sender.then(None)
        self._append("reopen", tags=source_tags())

    def _close(self) -> bool:
        """Leave the outbox to others; remove an empty one. False: the run was opened again meanwhile."""
        with _registry:
            if not self._offline and self._outbox.waiting:
                return False
            _open.pop(self._outbox.folder, None)
            self._outbox.release(remove=not self._outbox.waiting)
            return True

    def _note_steps(self, metrics: Iterable[str], step: int) -> None:
        for key in metrics:
            self._steps.setdefault(key, set()).add(step)

    def _append(self, do: str, **what: Any) -> None:
        self._keep(lambda: self._outbox.append(do, **what))

    def _append_file(self, source: str | Path, name: str, place: str | None, do: str = "file") -> None:
        self._keep(lambda: self._outbox.append_file(source, name, place, do=do))

    def _keep(self, entry: Callable[[], None]) -> None:
        """A disk that refuses what is to wait for the store costs the record, not the work."""
        try:
            entry()
        except TrackingError as error:
            tell(f"not recorded for MLflow: {error}")
        if not self._offline:
            self._sender.wake()

    def _left(self) -> str:
        """What waits, and what to do about it."""
        waiting, folder = self._outbox.waiting, self._outbox.folder.parent.parent
        why = "" if self._offline else f" ({self._sender.away or 'the store is slow'})"
        return f"{waiting} entries for MLflow wait in {self._outbox.folder}{why}; video-lstm sync {folder} sends them"


_registry = threading.RLock()
_open: dict[Path, MlflowRun] = {}
"""By outbox, the runs that this process still sends: one that is closed while its store takes nothing, too."""


def start(
    config: TrackingConfig,
    name: str,
    run_id: str | None = None,
    parent: str | None = None,
    key: str = "",
    folder: Path | None = None,
) -> Run:
    """Open a run: a new one, or the one of an interrupted training.

    Where tracking is off there is nothing to record to; so it is in every process but the first of a
    distributed training (`torchrun` numbers them in $RANK), or each would make a run of its own.

    A new run needs a store that answers, unless `config.offline`; one that is gone on with does not.

    Args:
        config: store and experiment.
        name: of a new run; a re-opened one keeps its own.
        run_id: the run to go on with; its status becomes RUNNING again.
        parent: the run under which MLflow shows a new one: a sweep of its trials, a cross-validation of its folds.
        key: names a training whose `run_id` may have been lost; a run that was made with it is gone on with.
        folder: of the training: what waits for the store lies there, in `outbox/`; None: in `runs/.outbox/`.

    Raises:
        TrackingError: the store cannot be used, or does not have the run.
    """
    if not config.enabled or os.environ.get("RANK", "0") != "0":
        return NoRun()
    uri, again = store_uri(config), run_id is not None
    if (run_id or "").startswith(OFFLINE):
        key, run_id = str(run_id).removeprefix(OFFLINE), None
    key = key or uuid4().hex
    place = place_of((folder / NAME if folder else ELSEWHERE).absolute(), key, run_id)
    with _registry:
        run = _open.get(place)
        if run is not None:
            run.go_on()
            return run
        outbox = Outbox(place)
        try:
            made = {"name": name, "experiment": config.experiment, "parent": parent, "key": key}
            run = _opened(outbox, uri, run_id, made, again, config.offline)
        except BaseException:
            outbox.release(remove=outbox.last <= 1)  # of a run that could not be made
            raise
        _open[place] = run
    return run


def end_early(run: Run, error: BaseException, preempted: str = "by SIGTERM") -> None:
    """Close a run that an exception ends: KILLED by a stop, else FAILED, with a tag that says why. Of what no user can
    cause the traceback is kept too, as the artifact `FAILURE`.

    Args:
        run: it.
        error: what ends it; raise it again afterwards.
        preempted: what the tag says of a scheduler's stop.
    """
    tag = {"failure": f"{type(error).__name__}: {error}"[:500]}
    if isinstance(error, Preempted):
        tag = {"preempted": preempted}
    run.tags(tag)
    if not isinstance(error, UserError | KeyboardInterrupt):
        run.text("".join(traceback.format_exception(error)), FAILURE)
    run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")


def _opened(
    outbox: Outbox, uri: str, run_id: str | None, made: dict[str, Any], again: bool, offline: bool
) -> MlflowRun:
    """The run of an outbox: made in the store, found there, or believed to be there while it takes nothing."""
    run_id = run_id or outbox.about.get("run_id")
    begun = outbox.last > 0
    outbox.note(uri=hide_password(uri), experiment=made["experiment"], key=made["key"], run_id=run_id)
    if "time" not in outbox.about:
        outbox.note(time=time.time())
    delivery = Delivery(uri, run_id)
    if run_id is None and not begun:
        outbox.append("create", **made, tags=source_tags(), time=_now())
    if not offline:
        try:
            _reach(delivery, outbox)
        except TrackingError as error:
            if not is_away(error) or not (run_id or begun):
                raise
            tell(f"MLflow takes nothing now: {reason(error)}. What is to be recorded waits in {outbox.folder}")
    run = MlflowRun(outbox, delivery, made["key"], offline)
    if again or run_id or begun or delivery.existed:
        run.go_on()
    return run


def _reach(delivery: Delivery, outbox: Outbox) -> None:
    """Make the run, or see that it is there.

    Raises:
        TrackingError: the store does not answer, does not have the run, or holds it as deleted.
    """
    if delivery.run_id is None:
        delivery.deliver(outbox)
        return
    run_id = delivery.run_id
    try:
        found = delivery.run()
    except TrackingError as error:
        if is_away(error):
            raise
        raise TrackingError(
            f"run {run_id} cannot be resumed: {error}; set --tracking.uri to the store it was recorded in"
        ) from error
    if found.info.lifecycle_stage == "deleted":
        raise TrackingError(f"run {run_id} is deleted; restore it with: mlflow runs restore --run-id {run_id}")


def _plain(value: Any, length: int) -> str:
    """Text as MLflow and its databases take it."""
    return hide_password(str(value)).replace("\0", "")[:length]


def _now() -> int:
    return int(time.time() * 1000)
