"""Targets on their way from a list to a training: catalog, digests, splits, views, stored features, batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import AugmentationConfig, DataConfig, FlowConfig, TrainingConfig, VideoConfig
from pipeline.data import catalog, splits
from pipeline.data.batches import Batch
from pipeline.data.clips import Plan, load_clip, moments
from pipeline.data.features import FeatureStore, feature_key
from pipeline.data.targets import Segments
from pipeline.stages.extract import training_views
from pipeline.stages.ingest import Ingested, ingest
from pipeline.stages.reports import ingest_text
from pipeline.stages.sources import FeatureSource, FileSource
from pipeline.video.writer import write_video

CLIPS, FRAMES, RATE = 10, 24, 12.0
SUFFIXES = (".mp4", ".avi", ".webm", ".mkv")
SPLIT = DataConfig(val=0.2, test=0.2)

Listed = Callable[[str, str], DataConfig]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    """Ten clips of 24 frames in four containers, whose grey level is ten times the number of the frame, and a list."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(CLIPS):
        frames = np.zeros((FRAMES, 32, 32, 3), np.uint8) + (10 * np.arange(FRAMES, dtype=np.uint8))[:, None, None, None]
        frames[:, :8] = rng.integers(0, 255, (1, 8, 32, 3))
        write_video(str(folder / f"{number}{SUFFIXES[number % 4]}"), frames, RATE)

    def write(name: str, text: str) -> DataConfig:
        (folder / name).write_text(text)
        return replace(SPLIT, root=str(folder / name))

    return write


def name(number: int) -> str:
    return f"{number}{SUFFIXES[number % 4]}"


@pytest.fixture(scope="module")
def segments(listed: Listed) -> DataConfig:
    """Class low to second 0.5, high from second 1 on; in clips 8 and 9 rare in between."""
    rows = [f"{name(n)},0,0.5,low\n{name(n)},1.0,,high" for n in range(CLIPS)]
    return listed("segments.csv", "\n".join(["path,start,end,label", *rows, f"{name(8)},.5,1,rare", ""]))


@pytest.fixture(scope="module")
def curve(listed: Listed) -> DataConfig:
    """Ten times the frame's number, from second 0.25 to 1.5, plus 1000 times the clip's."""
    rows = [f"{name(n)},{t},{1000 * n + 10 * RATE * t}" for n in range(CLIPS) for t in (1.5, 0.25)]
    return listed("curve.csv", "\n".join(["path,time,value", *rows, ""]))


@pytest.fixture(scope="module")
def values(listed: Listed) -> DataConfig:
    return listed("values.csv", "\n".join(["path,value", *(f"{name(n)},{n / 4}" for n in range(CLIPS)), ""]))


def test_a_catalog_of_segments(segments: DataConfig, tmp_path: Path) -> None:
    data = ingest(segments, task="frame_label")
    assert (data.classes, data.task, len(data.table)) == (["high", "low", "rare"], "frame_label", CLIPS)
    assert set(data.table["label"]) == {"high"}
    file = data.files("train")[0]
    assert isinstance(file.target, Segments) and file.target.at(np.array([0.2, 0.7, 1.2])).tolist()[::2] == [1, 0]
    report = splits.report(data.table)
    assert sum(counts["rare"] for counts in report["counts"].values()) == 1
    assert sum(counts["low"] for counts in report["counts"].values()) == CLIPS
    assert sum(seconds["low"] for seconds in report["seconds"].values()) == pytest.approx(0.5 * CLIPS)
    assert sum(seconds["high"] for seconds in report["seconds"].values()) == pytest.approx(1.0 * CLIPS, abs=0.1)
    assert all("rare" in lacking for lacking in report["missing"].values()) and len(report["missing"]) == 2
    assert " s" in ingest_text(data, None) and "rare" in ingest_text(data, None)
    with_background = ingest(replace(segments, background="between"), task="frame_label")
    assert with_background.classes == ["between", "high", "low", "rare"]
    (target,) = {f.target.at(np.array([0.7])).item() for f in with_background.files("test")}  # type: ignore[union-attr]
    assert target in (0, 3)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_targets_survive_in_both_forms_of_the_catalog(
    segments: DataConfig, curve: DataConfig, values: DataConfig, tmp_path: Path, suffix: str
) -> None:
    for config, task in ((segments, "frame_label"), (curve, "frame_regression"), (values, "regression")):
        data = ingest(config, tmp_path / f"catalog{suffix}", task=task)
        back = catalog.read(tmp_path / f"catalog{suffix}")
        pd.testing.assert_frame_equal(back.drop(columns="times", errors="ignore"), data.table)
        assert catalog.digest(back) == data.digest and splits.split_digest(back) == data.split_digest


def test_digests_follow_the_targets(values: DataConfig, curve: DataConfig, listed: Listed) -> None:
    one = ingest(values, task="regression")
    text = Path(values.root or "").read_text()
    two = ingest(listed("other.csv", text.replace(",2.25", ",2.5")), task="regression")
    assert one.digest != two.digest and one.split_digest != two.split_digest
    assert len({one.digest, ingest(curve, task="frame_regression").digest, two.digest}) == 3


def test_values_have_no_classes_and_are_spread_over_the_splits(values: DataConfig, curve: DataConfig) -> None:
    data = ingest(values, task="regression")
    assert data.classes == [] and set(data.table["label"]) == {""}
    assert sorted(file.target for split in ("train", "val", "test") for file in data.files(split)) == [  # type: ignore[type-var]
        n / 4 for n in range(CLIPS)
    ]
    found = splits.report(data.table)
    assert found["counts"] == {"train": {}, "val": {}, "test": {}} and found["missing"] == {}
    assert found["values"]["train"]["clips"] == 6 and found["values"]["train"]["max"] <= 2.25
    for split in ("val", "test"):  # of ten values in five bins, two of one split are never neighbours of one bin
        low, high = sorted(file.target for file in data.files(split))  # type: ignore[type-var]
        assert int(low * 2) != int(high * 2)
    assert "mean" in ingest_text(data, None)
    means = splits.report(ingest(curve, task="frame_regression").table)["values"]
    assert sum(part["mean"] * part["clips"] for part in means.values()) / CLIPS == pytest.approx(4500 + 105)


def test_frame_numbers_for_seconds_are_noticed(listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{name(n)},0,12,a\n{name(n)},12,24,b" for n in range(CLIPS)]
    ingest(listed("frames.csv", "\n".join(["path,start,end,label", *rows])), task="frame_label")
    written = capsys.readouterr().err
    assert f"{CLIPS} of {CLIPS} files have targets after their end" in written and "24 s in a file of 2.0 s" in written


PLANS = {
    "uniform": Plan(VideoConfig(frames=7, size=16), FlowConfig(), AugmentationConfig(crop=1.0, brightness=0.0)),
    "window": Plan(
        VideoConfig(sampling="rate", fps=7.5, frames=6, size=16), FlowConfig(), AugmentationConfig(1.0, brightness=0.0)
    ),
}


@pytest.mark.parametrize("sampling", PLANS)
@pytest.mark.parametrize("workers", [0, 2])
def test_targets_are_those_of_the_frames_that_a_view_shows(curve: DataConfig, sampling: str, workers: int) -> None:
    """The grey level says which frame it is: jittered moments, windows and whole clips, from four containers."""
    data = ingest(curve, task="frame_regression")
    files = data.files("train")
    source = FileSource(files, PLANS[sampling], TrainingConfig(batch_size=3), workers, seed=4)
    assert source.labels == [-1] * len(files) and source.targets == [file.target for file in files]
    known = 0
    for epoch, order in ((0, list(range(len(files)))), (1, list(range(len(files)))[::-1]), (0, None)):
        row = 0
        for batch in source.batches(epoch, order):
            assert batch.targets.dtype == torch.float32 and batch.times.dtype == torch.float64
            for target, times, length, rgb in zip(
                batch.targets, batch.times, batch.lengths.tolist(), batch.inputs["rgb"], strict=True
            ):
                file = files[(order or list(range(len(files))))[row]]
                row += 1
                level = rgb[:length, :, 8:].double().mean(dim=(1, 2, 3)).numpy()
                shown = np.rint(level / 10)
                offset = float(file.target.values[0]) - 10 * RATE * 0.25  # type: ignore[union-attr]
                np.testing.assert_allclose(times[:length], shown / RATE, atol=2e-3)
                assert (times[length:] == 0).all() and torch.isnan(target[length:]).all()
                inside = (shown / RATE >= 0.25) & (shown / RATE <= 1.5)
                assert torch.isnan(target[:length]).numpy().tolist() == (~inside).tolist()
                np.testing.assert_allclose(target[:length].numpy()[inside] - offset, 10 * shown[inside], atol=0.2)
                known += int(inside.sum())
        assert row == len(files)
    assert known > 50
    if sampling == "window":
        assert max(int(b.lengths.max()) for b in source.batches(0, [0, 1])) == 6  # a window of the clip's 15 moments
        assert {int(b.lengths.max()) for b in source.batches(0, None)} == {15}


def batches_of(source: Any, files: int) -> list[Batch]:
    return [batch for epoch in (0, 1) for batch in source.batches(epoch, range(files))] + list(source.batches(0, None))


@pytest.mark.parametrize("sampling", PLANS)
def test_stored_features_have_the_targets_of_their_own_moments(
    segments: DataConfig, tmp_path: Path, sampling: str
) -> None:
    """What is stored here says its moments itself; and no key of the store depends on a target."""
    data, plan = ingest(segments, task="frame_label"), PLANS[sampling]
    files = data.files("train")
    requests, store = training_views(files, 3), FeatureStore(tmp_path)
    for file, views in zip(files, requests, strict=True):
        for _, view in views:
            assert file.times is not None
            clip = load_clip(file.path, file.times, plan, view)
            np.testing.assert_array_equal(moments(file.times, plan.video, view), clip.times)
            store.put(feature_key(file.digest, plan, "x", view), {"rgb": clip.times[:, None].astype(np.float32)})

    def vanished(*_: Any) -> dict[str, np.ndarray]:
        raise AssertionError("a feature was not found under its key")

    source = FeatureSource(files, requests, store, plan, "x", 4, 0, vanished)
    assert source.labels == [0] * len(files)
    for batch in batches_of(source, len(files)):
        inside = torch.arange(batch.times.shape[1]) < batch.lengths[:, None]
        torch.testing.assert_close(batch.inputs["rgb"][..., 0].double(), batch.times, atol=1e-6, rtol=0)
        assert (batch.targets[~inside] == -1).all() and batch.targets.dtype == torch.int64
        assert ((batch.targets == 1) == (inside & (batch.times < 0.499))).all()
        assert ((batch.targets == 0) == (inside & (batch.times > 0.998))).all()
    other = data.table.assign(target='{"value": 1}', label="")
    plain = Ingested(other, [], {}, "", "").files("train")
    again = FeatureSource(plain, requests, store, plan, "x", 4, 0, vanished)
    for batch in batches_of(again, len(files)):
        assert batch.targets.tolist() == [1.0] * len(batch.lengths)
