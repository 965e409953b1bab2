"""B5: prediction with another frame size, crop or length than training, because nobody told it (eriklindernoren)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Config
from pipeline.data.batches import collate
from pipeline.data.clips import Plan, load_clip
from pipeline.data.stream import stream_clips
from pipeline.stages import predict
from pipeline.stages.classify import classify
from pipeline.stages.models import load_model
from pipeline.stages.predict import Predictor
from pipeline.stages.train import train
from pipeline.video.reader import probe

UNUSUAL = {"video__size": 40, "video__fit": "crop", "video__frames": 5, "video__streams": "rgb+difference+flow"}


@pytest.fixture(scope="module")
def config(make_config: Any) -> Config:
    small = {"flow__grid": 3, "flow__size": 24, "difference__form": "image"}
    return make_config(**UNUSUAL, **small, encoder__grid=2, training__epochs=1)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def trained(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("unusual") / "run"
    train(config, folder)
    return load_model(str(folder), "cpu")


def test_classification_prepares_clips_as_training_did(
    trained: Predictor, config: Config, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, tuple[int, ...]]] = []

    def watched(*arguments: Any, **options: Any) -> Any:
        for loaded in stream_clips(*arguments, **options):
            assert loaded.clip is not None
            seen.append({name: x.shape for name, x in loaded.clip.inputs.items()})
            yield loaded

    monkeypatch.setattr(predict, "stream_clips", watched)
    result = classify(trained, [str(tiny_clips / "red")], workers=0)
    assert result.ok == 10
    for shapes, row in zip(seen, result.table, strict=True):
        images = dict.fromkeys(("rgb", "difference"), (row["frames"], 3, 40, 40))
        assert shapes == images | {"flow": (row["frames"], 18)}
        assert row["frames"] == min(5, probe(row["path"]).frames)


def test_the_numbers_are_those_of_the_training_configuration(
    trained: Predictor, config: Config, tiny_clips: Path
) -> None:
    for path in sorted(map(str, (tiny_clips / "green").iterdir()))[:3]:
        clip = load_clip(path, probe(path).times, Plan.of(config))
        batch = collate([clip.inputs], [0])
        with torch.inference_mode():
            logits = trained.model(batch.inputs, batch.lengths)[0]
        (row,) = classify(trained, [path], top_k=3, workers=0).table
        expected = dict(
            zip(trained.classes, torch.softmax(logits.double() / trained.temperature, -1).tolist(), strict=True)
        )
        assert {one["label"]: one["probability"] for one in row["top_k"]} == pytest.approx(expected, abs=1e-6)
