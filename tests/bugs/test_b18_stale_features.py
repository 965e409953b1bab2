"""B18: features kept under a file name are served after encoder, size or sampling changed (harvitronix, MATLAB)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import AugmentationConfig, Config, DifferenceConfig, EncoderConfig, FlowConfig, VideoConfig
from pipeline.data import features
from pipeline.data.clips import Plan
from pipeline.data.examine import content_digest
from pipeline.data.features import FeatureStore, feature_key
from pipeline.model.classifier import build_classifier
from pipeline.stages.extract import encoders_digest, fill, training_views
from pipeline.stages.ingest import clip_files, ingest
from pipeline.video.writer import write_video

PLAN = Plan(VideoConfig(streams="rgb+difference+flow"), FlowConfig(), AugmentationConfig())
VIDEO = {"streams": "rgb", "sampling": "rate", "frames": 17, "fps": 9.0, "size": 113, "fit": "crop"}
DIFFERENCE = {"form": "image", "grid": 9, "size": 161, "interval": 0.0}
FLOW = {"form": "image", "grid": 9, "size": 161, "interval": 0.0}
AUGMENTATION = {
    "crop": 0.6, "flip": 0.5, "flip_labels": [["a", "b"]], "reverse": 0.5, "rotate": 5.0, "brightness": 0.1,
    "saturation": 0.1,
}  # fmt: skip


def key(plan: Plan = PLAN, digest: str = "d", encoders: str = "e", view: int | None = None) -> str:
    return feature_key(digest, plan, encoders, view)


def test_every_option_that_decides_a_feature_is_part_of_its_key() -> None:
    plans = [replace(PLAN, video=replace(PLAN.video, **{name: value})) for name, value in VIDEO.items()]
    plans += [replace(PLAN, flow=replace(PLAN.flow, **{name: value})) for name, value in FLOW.items()]
    plans += [replace(PLAN, difference=replace(PLAN.difference, **{name: x})) for name, x in DIFFERENCE.items()]
    others = [key(plan) for plan in plans]
    others += [key(digest="other clip"), key(encoders="other weights"), key(view=1), key(view=2)]
    assert len({key(), *others}) == 1 + len(others)
    assert set(VIDEO) | {"partial"} == set(vars(VideoConfig())) and set(FLOW) == set(vars(FlowConfig()))
    assert set(DIFFERENCE) == set(vars(DifferenceConfig()))


def test_another_decoder_or_another_arithmetic_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(features, "_made_by", lambda: "opencv 0, torch 0")
    other = key()
    monkeypatch.setattr(features, "FORMAT", features.FORMAT + 1)
    assert len({before, other, key()}) == 3


def test_precision_of_the_encoder_is_another_key() -> None:
    torch.manual_seed(0)
    model = build_classifier(Config(encoder=EncoderConfig("compact", "none")), 2)
    before = encoders_digest(model, 1)
    model.encoders["rgb"].precision = "bf16"  # type: ignore[assignment]
    assert encoders_digest(model, 1) != before


def test_augmentation_counts_for_random_views_alone() -> None:
    plans = [
        replace(PLAN, augmentation=replace(PLAN.augmentation, **{name: value})) for name, value in AUGMENTATION.items()
    ]
    assert {key(plan) for plan in plans} == {key()}
    assert len({key(view=1), *(key(plan, view=1) for plan in plans)}) == 1 + len(plans)
    more = replace(PLAN, augmentation=replace(PLAN.augmentation, views=9))
    assert key(more, view=1) == key(view=1)
    named = replace(PLAN, augmentation=replace(PLAN.augmentation, reverse_labels=[["a", "b"]]))
    assert key(named, view=1) == key(view=1)  # what a view is to be taken for, not what it is
    assert set(AUGMENTATION) | {"views", "reverse_labels"} == set(vars(AugmentationConfig()))


def test_options_of_a_stream_do_not_count_where_it_is_not() -> None:
    still = replace(PLAN, video=VideoConfig())
    assert key(replace(still, flow=FlowConfig(grid=5))) == key(still)
    assert key(replace(still, difference=DifferenceConfig(grid=5))) == key(still)


@pytest.mark.parametrize(
    "change",
    [
        {"video__size": 40},
        {"video__frames": 3},
        {"video__sampling": "rate"},
        {"video__fit": "pad"},
        {"encoder__grid": 2},
        {"seed": 1},  # other weights
    ],
    ids=str,
)
def test_a_changed_option_is_a_miss_and_a_moved_file_a_hit(
    make_config: Any, tiny_clips: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    store = FeatureStore(tmp_path / "store")

    def added(folder: Path, **changes: Any) -> int:
        """How many features this adds."""
        before = len(list(tmp_path.rglob("*.safetensors")))
        config = make_config(**{"encoder__frozen": True, "video__size": 32, "data__root": str(folder), **changes})
        files = ingest(config.data, split=False).table
        torch.manual_seed(config.seed)
        model = build_classifier(config, 3).eval()
        clips = clip_files(files[files["status"] == "ok"].iloc[:2], ["blue", "green", "red"])
        digest = encoders_digest(model, config.encoder.grid)
        fill(model, clips, training_views(clips, 1), Plan.of(config), store, digest, torch.device("cpu"), 0)
        return len(list(tmp_path.rglob("*.safetensors"))) - before

    assert added(tiny_clips) == 2
    assert added(tiny_clips) == 0
    assert added(tiny_clips, **change) == 2
    moved = tmp_path / "moved"
    shutil.copytree(tiny_clips, moved)
    for path in sorted((moved / "blue").iterdir()):
        path.rename(path.with_name(f"renamed {path.name}"))
    assert added(moved) == 0


def test_other_content_under_the_old_name_is_a_miss(tmp_path: Path) -> None:
    keys = set()
    for value in (10, 200):
        write_video(str(tmp_path / "clip.mkv"), np.full((4, 16, 16, 3), value, dtype=np.uint8), 10.0)
        keys.add(key(digest=content_digest(str(tmp_path / "clip.mkv"))))
    assert len(keys) == 2
