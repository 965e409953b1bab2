from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from pipeline.config import Config
from pipeline.data.features import FeatureStore
from pipeline.errors import ConfigError, DataError
from pipeline.stages import extract as filling
from pipeline.stages.extract_all import Extracted, extract_all
from pipeline.stages.train import train

CLIPS, BAD, VIEWS = 30, 5, 2


@pytest.fixture
def config(make_config: Any, frozen_changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path / "cache"))
    return make_config(**frozen_changes)  # type: ignore[no-any-return]


def test_with_folds_every_clip_has_the_views_of_a_training_clip(make_config: Any) -> None:
    config = make_config(video__streams="flow", flow__size=32, flow__grid=2, data__folds=3, seed=5)
    found = extract_all(config)
    assert found.views == 2 * (found.clips - found.failed) == 60
    one = extract_all(replace(config, data=replace(config.data, fold=1)))
    assert one.computed == 0 and one.views < 60


def test_every_clip_and_view_is_stored_and_a_training_finds_all_of_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = extract_all(config)
    entries = len(list((tmp_path / "cache").rglob("*.safetensors")))
    assert entries == found.views == found.computed
    assert CLIPS < found.views < VIEWS * CLIPS  # training clips have several
    assert found == Extracted(
        CLIPS + BAD, found.views, found.views, 0, BAD, {"not a video": BAD}, str(tmp_path / "cache" / "features")
    )
    again = extract_all(config)
    assert (again.computed, again.present) == (0, found.views)

    monkeypatch.setattr(filling, "encode_clip", None)  # nothing is left to encode
    train(config, tmp_path / "run")


def test_an_interrupted_extraction_goes_on_where_it_was(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, stored = FeatureStore.put, []

    def interrupted(store: FeatureStore, *args: Any) -> None:
        if len(stored) == 7:
            raise KeyboardInterrupt
        stored.append(put(store, *args))

    monkeypatch.setattr(FeatureStore, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_all(config)
    monkeypatch.setattr(FeatureStore, "put", put)
    found = extract_all(config)
    assert (found.present, found.computed) == (7, found.views - 7)


def test_exported_features_and_their_index(config: Config, tmp_path: Path) -> None:
    config = replace(
        config, video=replace(config.video, streams="rgb+flow"), flow=replace(config.flow, grid=2, size=32)
    )
    out = tmp_path / "deep" / "out"
    found = extract_all(config, out)
    assert found.out == str(out)
    table = pd.read_parquet(out / "index.parquet")
    assert list(table.columns) == ["path", "label", "split", "status", "file", "shape"]
    assert len(table) == CLIPS + BAD and set(table["split"]) == {"train", "val", "test"}
    bad = table[table["status"] != "ok"]
    assert len(bad) == BAD and bad["file"].isna().all() and set(bad["status"]) == {"not a video"}
    good = table[table["status"] == "ok"]
    assert {path.name for path in out.iterdir()} == {*good["file"], "index.parquet"}
    for row in good.itertuples():
        arrays = load_file(out / str(row.file))
        assert {name: list(value.shape) for name, value in arrays.items()} == {k: list(v) for k, v in row.shape.items()}  # type: ignore[union-attr]
        assert arrays["rgb"].shape[1] == 1280 and arrays["flow"].shape[1] == 8
    contents = {path.name: path.read_bytes() for path in out.iterdir()}
    FeatureStore().clear()
    extract_all(config, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == contents


def test_features_that_vanish_before_the_export_are_made_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = filling.fill

    def cleared(*args: Any) -> Any:
        found = fill(*args)
        FeatureStore().clear()
        return found

    monkeypatch.setattr("pipeline.stages.extract_all.fill", cleared)
    extract_all(config, tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "index.parquet").dropna()
    assert len(table) == CLIPS
    assert all(np.isfinite(load_file(tmp_path / "out" / name)["rgb"]).all() for name in table["file"])


def test_a_clip_that_vanishes_is_a_row_with_its_reason(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages.ingest import ingest

    def moved(*args: Any, **keywords: Any) -> Any:
        data = ingest(*args, **keywords)
        ok = data.table.index[(data.table["status"] == "ok") & (data.table["split"] == "train")]
        data.table.loc[ok[0], "path"] = "/nowhere/clip.avi"
        return data

    monkeypatch.setattr("pipeline.stages.extract_all.ingest", moved)
    found = extract_all(config, tmp_path / "out")
    assert found.failed == BAD + 1 and found.reasons == {"not a video": BAD, "not found": 1}
    table = pd.read_parquet(tmp_path / "out" / "index.parquet").set_index("path")
    assert table.loc["/nowhere/clip.avi", "status"] == "not found"
    assert table["file"].notna().sum() == CLIPS - 1


def test_what_cannot_be_stored_is_refused_before_any_work(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.extract_all.ingest", None)
    for change, message in (({"frozen": False}, "frozen true"), ({"weights": "none"}, "set encoder.weights")):
        with pytest.raises(ConfigError, match=message):
            extract_all(replace(config, encoder=replace(config.encoder, **change)))  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        extract_all(config, tmp_path / "file" / "out")


def test_a_flow_grid_needs_no_encoder(make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path / "cache"))
    found = extract_all(make_config(video__streams="flow", flow__size=32, flow__grid=2))
    assert found.computed == found.views > CLIPS
