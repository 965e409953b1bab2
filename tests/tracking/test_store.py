from __future__ import annotations

import resource
import socket
import time
from pathlib import Path

import pytest

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking import runs
from pipeline.tracking.download import download
from pipeline.tracking.store import connect, hide_password, reported, sqlite_path, store_uri


def test_the_store_is_the_option_then_the_environment_then_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri(TrackingConfig()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert store_uri(TrackingConfig()) == "http://server:5000"
    assert store_uri(TrackingConfig(uri="sqlite:///a/b.db?timeout=5")) == (f"sqlite:///{tmp_path}/a/b.db?timeout=5")


@pytest.mark.parametrize("uri", ["./mlruns", "/data/mlruns", "file:///data/mlruns", "mlruns"])
def test_a_folder_is_refused_with_the_fix(uri: str) -> None:
    with pytest.raises(TrackingError, match=r"is a folder.*sqlite:///FOLDER/mlflow\.db"):
        store_uri(TrackingConfig(uri=uri))


def test_sqlite_path() -> None:
    assert sqlite_path("sqlite:////x/y.db") == Path("/x/y.db")
    assert sqlite_path("sqlite+pysqlite:////x/y.db?a=b") == Path("/x/y.db")
    assert sqlite_path("sqlite:///:memory:") is None
    assert sqlite_path("postgresql://host/x") is None


def test_passwords_are_hidden() -> None:
    assert hide_password("see postgresql://me:s3cret@host:1/db") == "see postgresql://me:***@host:1/db"
    assert hide_password("http://host:5000/a@b") == "http://host:5000/a@b"


@pytest.mark.parametrize(
    ("database", "words"),
    [("text", "not an SQLite database"), ("folder", "a folder"), ("text/mlflow.db", "cannot be made")],
)
def test_a_file_that_is_no_store_is_named_at_once(tmp_path: Path, database: str, words: str) -> None:
    (tmp_path / "text").write_text("not a database at all")
    (tmp_path / "folder").mkdir()
    begin = time.monotonic()
    with pytest.raises(TrackingError, match=words) as caught:
        runs.start(TrackingConfig(uri=f"sqlite:///{tmp_path}/{database}"), "x")
    assert time.monotonic() - begin < 5
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_reported_in_one_line_within_seconds() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(TrackingError, match=rf"no MLflow server answers at http://127\.0\.0\.1:{port}") as caught:
        runs.start(TrackingConfig(uri=f"http://127.0.0.1:{port}"), "x")
    assert time.monotonic() - begin < 15
    assert "\n" not in str(caught.value)
    assert "tracking.enabled false" in str(caught.value)


@pytest.mark.parametrize("uri", ["nonsense://x", "postgresql+nodriver://me:s3cret@127.0.0.1:9/db"])
def test_a_store_of_an_unknown_kind_is_one_line_without_password(uri: str) -> None:
    with pytest.raises(TrackingError) as caught:
        runs.start(TrackingConfig(uri=uri), "x")
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.fixture
def recorded(store: TrackingConfig, tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    run = runs.start(store, "recorded")
    run.artifact(folder, "checkpoint")
    run.finish()
    assert run.run_id is not None
    return run.run_id


def test_download_from_a_run(store: TrackingConfig, recorded: str, tmp_path: Path) -> None:
    for uri in (f"runs:/{recorded}", f"runs:/{recorded}/", f"runs:/{recorded}/checkpoint"):
        found = download(uri, tmp_path / "there", store)
        assert found.is_relative_to(tmp_path / "there")
        assert (found / "model.json").read_text() == "{}"


def test_download_from_the_registry_leaves_no_other_store_behind(
    store: TrackingConfig, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(store_uri(store))
    client.create_registered_model(recorded)
    source = client.get_run(recorded).info.artifact_uri
    version = client.create_model_version(recorded, f"{source}/checkpoint", recorded).version
    client.set_registered_model_alias(recorded, "champion", version)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for uri in (f"models:/{recorded}@champion", f"models:/{recorded}/{version}"):
        assert (download(uri, tmp_path / uri[-1], store) / "model.json").exists()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    ["runs:/0123", "RUN/other", "models:/nobody@champion", "models:/nobody/1", "models:/nobody", "hello"],
)
def test_a_model_that_is_not_there_is_named(store: TrackingConfig, recorded: str, tmp_path: Path, uri: str) -> None:
    uri = uri.replace("RUN", f"runs:/{recorded}")
    with pytest.raises(TrackingError, match=uri) as caught:
        download(uri, tmp_path / "there", store)
    assert "\n" not in str(caught.value)


def test_looking_for_a_model_makes_no_store(tmp_path: Path) -> None:
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(TrackingError, match="no MLflow store at"):
        download("runs:/0123", tmp_path / "there", config)
    with pytest.raises(TrackingError, match="no MLflow store at"):
        runs.start(config, "x", run_id="0123")
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow makes its tables one by one, and fails for ever on those that a killed process left."""
    from mlflow.store.db import utils

    database = tmp_path / "mlflow.db"
    (tmp_path / ".mlflow.db.tmp").write_bytes(b"half a database")
    (tmp_path / ".mlflow.db.tmp-journal").write_bytes(b"of a process that was killed")

    def stopped(engine: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utils, "_upgrade_db", stopped)
        with pytest.raises(KeyboardInterrupt):
            connect(f"sqlite:///{database}")
    assert not database.exists()
    assert connect(f"sqlite:///{database}").search_experiments()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "mlflow.db", "mlflow.db.lock"]


def test_a_store_that_cannot_grow_is_one_line_and_goes_on_when_it_can(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    from mlflow.entities import RunTag

    run_id = client.create_run("0").info.run_id
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "mlflow.db").stat().st_size, before[1]))
    try:
        with pytest.raises(TrackingError, match=r"mlflow\.db: .*disk I/O error$"), reported(uri):
            client.log_batch(run_id, tags=[RunTag(f"tag {number}", "x" * 4000) for number in range(100)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Traceback" not in capfd.readouterr().err
    client.set_tag(run_id, "later", "there is room")


def test_a_full_disk_comes_with_its_remedy() -> None:
    said = "(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO tags ..."
    message = r"the disk is full; make room there, set --tracking\.uri"
    with pytest.raises(TrackingError, match=message), reported("sqlite:////somewhere/mlflow.db"):
        raise OSError(said)
