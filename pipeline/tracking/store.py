"""The MLflow store: where it is, a quiet connection to it, its failures in one line, and what can be fetched.

MLflow takes a second or two to import and may speak to its makers: it is imported only when a store is used,
after its telemetry has been switched off in the environment.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.config import TrackingConfig
from pipeline.disk import replacing
from pipeline.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
CHECKPOINT_FOLDER = "checkpoint"
"""Folder among the artifacts of a model, and of a run of an earlier version, that holds the checkpoint."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""What MLflow is told before it is imported, unless the user said otherwise: no telemetry, no chatter,
nothing on stdout (it belongs to results), and about 4 s instead of 4 min until a dead server is reported."""
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SECRET_LENGTH = 8
"""A shorter one is found in too much that is none."""
AWAY = (
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
)
"""MLflow's codes for a store that answers in another way later."""
LOCKED = {
    "UNAUTHENTICATED": "asks for a user and a password, and does not know those given; set MLFLOW_TRACKING_USERNAME "
    "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "PERMISSION_DENIED": "does not allow this to the user of MLFLOW_TRACKING_USERNAME; ask whoever runs it",
}
"""MLflow's codes for a server that keeps something from this user, and what it does."""
OFF = "or pass --tracking.enabled false"
OTHERWISE = f", set --tracking.uri to another place, record for later with --tracking.offline true, {OFF}"
"""What else a training can do that has not begun."""


def store_uri(config: TrackingConfig) -> str:
    """The tracking URI: the configured one, else $MLFLOW_TRACKING_URI, else SQLite in the current folder.

    SQLite paths come back absolute, so that messages and later commands mean the same file.

    Raises:
        TrackingError: a folder or `file:` URI, which MLflow no longer writes (3.13 and later).
    """
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme = urlsplit(uri).scheme
    if (len(scheme) <= 1 or scheme == "file") and uri != "databricks":
        raise TrackingError(
            f"tracking.uri '{uri}' is a folder, which MLflow 3.13 and later do not write; "
            "use sqlite:///FOLDER/mlflow.db or the address of a server"
        )
    database = sqlite_path(uri)
    if database is None:
        return uri
    query = uri.partition("?")[2]
    return f"sqlite:///{database.as_posix()}" + (f"?{query}" if query else "")


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a SQLite store's database file; None for any other store."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    if match is None or match[1] == ":memory:":
        return None
    return Path(match[1]).absolute()


def artifact_root(uri: str) -> Path | None:
    """The folder of a SQLite store's artifacts, `mlruns` beside the database; None: the server decides."""
    database = sqlite_path(uri)
    return None if database is None else database.parent / "mlruns"


def hide_password(text: str) -> str:
    """Text with the passwords of the addresses in it blanked, and MLflow's own from the environment."""
    for name in SECRETS:
        if len(secret := os.environ.get(name, "")) >= SECRET_LENGTH:
            text = text.replace(secret, "***")
    return re.sub(r"(://[^\s:/@]*):[^\s/@]+@", r"\1:***@", text)


def prepare_environment() -> None:
    """Tell MLflow to be quiet, before its first import and for the processes started from this one."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def load_ahead(config: TrackingConfig) -> None:
    """Import MLflow beside other work, if it will be used: it takes a second or two. `connect` waits for it."""
    if config.enabled and os.environ.get("RANK", "0") == "0" and "mlflow" not in sys.modules and not _loading:
        prepare_environment()
        _loading.append(threading.Thread(target=_load, name="mlflow-import", daemon=True))
        _loading[0].start()


_loading: list[threading.Thread] = []


def _load() -> None:
    with suppress(Exception):  # whoever uses it finds out
        import_module("mlflow")


def connect(uri: str, create: bool = True) -> MlflowClient:
    """A client of the store, which is made if it is a SQLite file that does not exist yet.

    Args:
        uri: as `store_uri` gives it.
        create: False: a SQLite file that does not exist is an error.

    Raises:
        TrackingError: the store cannot be used.
    """
    prepare_environment()
    for thread in _loading:
        thread.join()
    database = sqlite_path(uri)
    if database is not None:
        _check_database(database, create)
    with reported(uri):
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each retry
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a page of what we say in a line
        with _one_at_a_time(database):
            if database is not None and not (database.exists() and database.stat().st_size):
                _make(database)
            return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def reported(uri: str) -> Iterator[None]:
    """Turn what MLflow and its drivers raise into a TrackingError of one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    where = hide_password(uri)
    try:
        yield
    except ModuleNotFoundError as error:
        raise TrackingError(f"{where}: this store needs the Python package {error.name}") from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        text = str(error)
        if "Max retries exceeded" in text or "Connection refused" in text:
            message = f"no MLflow server answers at {where}; start it{OTHERWISE}"
        elif "disk is full" in text or "No space left" in text:
            message = f"{where}: the disk is full; make room there{OTHERWISE}"
        elif locked := LOCKED.get(getattr(error, "error_code", "")):
            message = f"{where}: the server {locked}"
        else:
            message = f"{where}: {_one_line(text)}"
        raise TrackingError(message) from error


def error_code(error: TrackingError) -> str:
    """MLflow's code of what `reported` turned into this error; empty for what the system or a driver raised."""
    return str(getattr(error.__cause__, "error_code", ""))


def reason(error: Exception) -> str:
    """An error as somebody needs it who is not about to begin a training."""
    return str(error).replace(OTHERWISE, "")


def is_away(error: TrackingError) -> bool:
    """Whether the store could not answer, rather than refuse: it is worth asking again later."""
    if error.__cause__ is None or isinstance(error.__cause__, TrackingError | ImportError):
        return False
    return (error_code(error) or AWAY[0]) in AWAY


def _check_database(database: Path, create: bool) -> None:
    """Refuse at once what SQLAlchemy would retry for a minute and a half."""
    if not database.exists():
        if not create:
            raise TrackingError(f"no MLflow store at {database}; set --tracking.uri to where the run was recorded")
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(f"{database.parent}: cannot be made ({error.strerror})") from error
    if not os.access(database.parent, os.W_OK) or (database.exists() and not os.access(database, os.W_OK)):
        raise TrackingError(f"{database}: not writable; set --tracking.uri to another place, {OFF}")
    if database.is_dir():
        raise TrackingError(f"{database}: a folder; set --tracking.uri to sqlite:///{database}/mlflow.db")
    if database.exists() and database.stat().st_size:
        with database.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise TrackingError(f"{database}: not an SQLite database; set --tracking.uri to another file")


def _make(database: Path) -> None:
    """The tables of a new store, made beside its place: MLflow cannot go on with some that a kill left half made."""
    from mlflow.store.db import utils

    with replacing(database) as temporary:
        for left in (temporary, Path(f"{temporary}-journal")):  # a journal would be applied to the new file
            left.unlink(missing_ok=True)
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{temporary.as_posix()}")
        try:
            utils._initialize_tables(engine)
        finally:
            engine.dispose()


@contextmanager
def _one_at_a_time(database: Path | None) -> Iterator[None]:
    """Let no other process make the tables of a SQLite store meanwhile: MLflow's clients would both try, and
    one would fail in the middle. The empty lock file stays beside the database.
    """
    if database is None:
        yield
        return
    from filelock import FileLock

    with FileLock(database.with_name(f"{database.name}.lock"), timeout=60):
        yield


def _one_line(text: str) -> str:
    """The first line that says something, without passwords, at most 300 characters."""
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith(("#", "The following failures"))), "")
    plain = re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", first or "unknown failure")  # a signature of a cloud store
    return hide_password(plain)[:300]
