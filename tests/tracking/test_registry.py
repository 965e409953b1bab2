from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import TrackingConfig
from pipeline.errors import TrackingError
from pipeline.tracking.download import download
from pipeline.tracking.registry import register
from pipeline.tracking.runs import Run, start
from pipeline.tracking.store import connect, store_uri


def trained(store: TrackingConfig, folder: Path, text: str) -> Run:
    run = start(store, "trained")
    folder.mkdir()
    (folder / "model.json").write_text(text)
    run.artifact(folder, "checkpoint")
    run.finish()
    return run


def test_an_alias_leads_to_the_checkpoint_it_was_given_last(store: TrackingConfig, tmp_path: Path) -> None:
    runs = [trained(store, tmp_path / name, name) for name in ("first", "second")]
    ids = [str(run.run_id) for run in runs]
    assert register(store, "gestures", ids[0], "champion", {"value": 0.5}) == "models:/gestures/1"
    assert (download("models:/gestures@champion", tmp_path / "a", store) / "model.json").read_text() == "first"
    assert register(store, "gestures", ids[1], "champion") == "models:/gestures/2"
    assert (download("models:/gestures@champion", tmp_path / "b", store) / "model.json").read_text() == "second"
    assert (download("models:/gestures/1", tmp_path / "c", store) / "model.json").read_text() == "first"
    assert connect(store_uri(store)).get_model_version("gestures", "1").tags["value"] == "0.5"


def test_one_checkpoint_is_one_version(store: TrackingConfig, tmp_path: Path) -> None:
    run_id = str(trained(store, tmp_path / "run", "it").run_id)
    assert [register(store, "once", run_id) for _ in range(2)] == ["models:/once/1"] * 2
    assert register(store, "once too", run_id) == "models:/once too/1"


def test_what_cannot_be_registered_is_one_line(store: TrackingConfig, tmp_path: Path) -> None:
    empty = start(store, "empty")
    for name, run_id, alias, said in (
        ("m", str(empty.run_id), None, "holds no checkpoint"),
        ("m", "0" * 32, None, "0000"),
        ("a/b", str(trained(store, tmp_path / "run", "it").run_id), None, "name"),
        ("m", str(trained(store, tmp_path / "other", "it").run_id), "v1", "alias"),
    ):
        with pytest.raises(TrackingError, match=said) as error:
            register(store, name, run_id, alias)
        assert "\n" not in str(error.value)
