from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Config, to_dict
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan, load_clip
from pipeline.data.features import FeatureStore, feature_key
from pipeline.errors import DataError
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.stages import extract as stage
from pipeline.stages.extract import (
    Filled,
    encode_again,
    encoders_digest,
    fill,
    standardise,
    training_views,
)
from pipeline.stages.ingest import ingest
from pipeline.stages.predict import Predictor, encode_clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(make_config: Any) -> Config:
    return make_config(encoder__frozen=True, video__streams="rgb+flow", flow__size=32, flow__grid=2)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model(config: Config) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(config, 3).eval()


@pytest.fixture(scope="module")
def files(config: Config) -> list[ClipFile]:
    return ingest(config.data).files("test")


def filled(model: Classifier, files: list[ClipFile], config: Config, folder: Path, workers: int = 0) -> FeatureStore:
    store = FeatureStore(folder)
    views = training_views(files, config.augmentation.views)
    digest = encoders_digest(model, config.encoder.grid)
    assert fill(model, files, views, Plan.of(config), store, digest, CPU, workers).failed == {}
    return store


def test_the_store_holds_what_the_encoder_makes_of_each_view(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path
) -> None:
    store = filled(model, files, config, tmp_path)
    plan, digest = Plan.of(config), encoders_digest(model, 1)
    for requests in training_views(files, 2):
        for index, view in requests:
            file = files[index]
            assert file.times is not None
            expected = encode_clip(model, load_clip(file.path, file.times, plan, view), CPU)
            found = store.get(feature_key(file.digest, plan, digest, view))
            assert found is not None and found.keys() == {"rgb", "flow"}
            assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2 * len(files)


def test_a_second_call_does_no_work(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(model, files, config, tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is left to read or encode")

    monkeypatch.setattr(stage, "stream_clips", refuse)
    monkeypatch.setattr(stage, "encode_clip", refuse)
    filled(model, files, config, tmp_path)


def test_only_what_is_missing_is_encoded(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(model, files[:4], config, tmp_path)
    encoded: list[int] = []

    def counted(model: Classifier, clip: Any, device: torch.device) -> Any:
        encoded.append(clip.length)
        return encode_clip(model, clip, device)

    monkeypatch.setattr(stage, "encode_clip", counted)
    filled(model, files, config, tmp_path)
    assert len(encoded) == 2 * (len(files) - 4)


def test_workers_change_no_bit(model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path) -> None:
    contents = []
    for workers in (0, 2):
        filled(model, files, config, tmp_path / str(workers), workers)
        stored = sorted((tmp_path / str(workers)).rglob("*.safetensors"))
        contents.append({path.name: path.read_bytes() for path in stored})
    assert contents[0] == contents[1]


def test_a_file_that_vanished_is_named_once_and_has_no_features(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path
) -> None:
    gone = ClipFile(str(tmp_path / "gone.avi"), 0, files[0].times, 1.0, "f" * 64)
    mixed = [files[0], gone, files[1]]
    store = FeatureStore(tmp_path / "store")
    failed = fill(model, mixed, training_views(mixed, 3), Plan.of(config), store, "encoders", CPU, 0).failed
    assert failed == {gone.path: "not found"}
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6


def test_damaged_features_are_named_once_and_made_again(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = filled(model, files, config, tmp_path)
    paths = sorted(tmp_path.rglob("*.safetensors"))
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths[:2], contents, strict=False):
        path.write_bytes(content[:-4] + b"oops")
    capsys.readouterr()
    views, digest = training_views(files, config.augmentation.views), encoders_digest(model, config.encoder.grid)
    found = fill(model, files, views, Plan.of(config), store, digest, CPU, 0)
    assert found == Filled(2, 2 * len(files) - 2, {})
    assert capsys.readouterr().err.count("2 stored features are damaged") == 1
    assert [path.read_bytes() for path in paths] == contents
    fill(model, files, views, Plan.of(config), store, digest, CPU, 0)
    assert capsys.readouterr().err == ""


def test_a_limit_too_small_is_named_and_costs_nothing(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FeatureStore(tmp_path, limit=1000)
    views, digest = training_views(files, 2), encoders_digest(model, 1)
    fill(model, files, views, Plan.of(config), store, digest, CPU, 0)
    assert "above its limit, all of it in use; raise VIDEO_LSTM_CACHE_LIMIT" in capsys.readouterr().err
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2 * len(files)


def test_a_view_that_vanished_is_encoded_again_to_the_bit(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path
) -> None:
    store = filled(model, files, config, tmp_path)
    plan, digest = Plan.of(config), encoders_digest(model, 1)
    _, view = training_views(files, 2)[1][1]
    key = feature_key(files[1].digest, plan, digest, view)
    before = {name: value.copy() for name, value in (store.get(key) or {}).items()}
    store.clear()
    found = encode_again(model, files[1], view, plan, store, digest, CPU)
    stored = store.get(key)
    assert stored is not None and found.keys() == stored.keys() == before.keys() == {"rgb", "flow"}
    assert all(np.array_equal(found[n], before[n]) and np.array_equal(stored[n], before[n]) for n in before)
    gone = ClipFile(str(tmp_path / "gone.avi"), 0, files[0].times, 1.0, "f" * 64)
    with pytest.raises(DataError, match=r"features of .*gone\.avi are gone .*not found"):
        encode_again(model, gone, None, plan, store, digest, CPU)


def test_stored_features_and_a_prediction_from_the_file_agree_to_the_bit(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path
) -> None:
    store = filled(model, files, config, tmp_path)
    plan, digest = Plan.of(config), encoders_digest(model, 1)
    card = Card(to_dict(config), ["blue", "green", "red"])
    predictor = Predictor(model, card, CPU, "")
    for file, prediction in zip(files[:4], predictor.predict(files[:4]), strict=True):
        stored = store.get(feature_key(file.digest, plan, digest, None))
        assert stored is not None and prediction.probabilities is not None
        assert np.array_equal(predictor.from_features(stored), prediction.probabilities)


def test_views_follow_the_content_so_that_more_clips_or_another_order_find_them(files: list[ClipFile]) -> None:
    views = training_views(files, 3)
    assert all(first == (i, None) for i, (first, *_) in enumerate(views))
    by_digest = {file.digest: [view for _, view in requests] for file, requests in zip(files, views, strict=True)}
    turned = files[::-1]
    for file, requests in zip(turned, training_views(turned, 4), strict=True):
        assert [view for _, view in requests][:3] == by_digest[file.digest]
    assert len({view for requests in views for _, view in requests}) == 2 * len(files) + 1


def test_features_are_standardised_with_the_training_clips_mean_and_deviation(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path
) -> None:
    store = filled(model, files, config, tmp_path)
    plan, digest = Plan.of(config), encoders_digest(model, 1)
    standardise(model, files, plan, store, digest, 0, seed=0)
    found = [store.get(feature_key(file.digest, plan, digest, None)) for file in files]
    for name in ("rgb", "flow"):
        vectors = np.concatenate([features[name] for features in found if features is not None])
        buffers = dict(model.branches[name].named_buffers())
        (mean,) = (value for key, value in buffers.items() if key.endswith("mean"))
        (std,) = (value for key, value in buffers.items() if key.endswith("std"))
        varies = vectors.std(axis=0) > 1e-3
        assert mean.numpy() == pytest.approx(vectors.mean(axis=0), abs=1e-5)
        assert std.numpy()[varies] == pytest.approx(vectors.std(axis=0)[varies], rel=1e-4)
        assert varies.any() and (std > 0).all()


def test_standardisation_leaves_out_no_clip_whose_features_vanished(
    model: Classifier, files: list[ClipFile], config: Config, tmp_path: Path
) -> None:
    plan, digest = Plan.of(config), encoders_digest(model, 1)
    states = []
    for vanished in (0, 3):
        store = filled(model, files, config, tmp_path)
        for file in files[:vanished]:
            key = feature_key(file.digest, plan, digest, None)
            (tmp_path / key[:2] / f"{key}.safetensors").unlink()
        standardise(model, files, plan, store, digest, 0, seed=0)
        states.append({name: value.clone() for name, value in model.named_buffers() if "standardisation" in name})
    assert states[0] and all(torch.equal(states[0][name], states[1][name]) for name in states[0])
