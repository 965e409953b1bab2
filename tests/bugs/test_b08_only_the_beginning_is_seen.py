"""B8: only the first N frames of a video are ever looked at (keras-io, the transformers pipeline's default)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import FlowConfig, VideoConfig
from pipeline.data.clips import Plan, load_clip
from pipeline.model.classifier import build_classifier
from pipeline.stages.predict import encode_clip
from pipeline.video.reader import probe
from pipeline.video.writer import write_video

FRAMES = 200


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two 20-second videos of 200 frames, without loss, that differ in their last tenth alone."""
    folder = tmp_path_factory.mktemp("twins")
    frames = np.random.default_rng(0).integers(0, 200, (FRAMES, 32, 32, 3), dtype=np.uint8)
    marked = frames.copy()
    marked[-FRAMES // 10 :, 8:24, 8:24] = 255
    paths = [str(folder / name) for name in ("plain.mkv", "marked.mkv")]
    for path, content in zip(paths, (frames, marked), strict=True):
        write_video(path, content, 10.0)
    return paths


@pytest.mark.parametrize("streams", ["rgb", "difference", "flow"])
@pytest.mark.parametrize("sampling", ["uniform", "rate"])
def test_a_mark_in_the_last_tenth_changes_the_features(
    twins: list[str], make_config: Any, sampling: str, streams: str
) -> None:
    video = VideoConfig(streams=streams, sampling=sampling, size=32)  # type: ignore[arg-type]
    flow = FlowConfig(size=32, grid=2)
    torch.manual_seed(0)
    model = build_classifier(make_config(video=video, flow=flow), 3).eval()
    plain, marked = (
        encode_clip(model, load_clip(path, probe(path).times, Plan(video, flow)), torch.device("cpu"))[streams]
        for path in twins
    )
    assert plain.shape == marked.shape
    changed = np.abs(plain - marked).max(axis=1) > 1e-3
    beginning = int(len(changed) * 0.85)
    assert changed[-1] and not changed[:beginning].any()


def test_training_views_reach_the_end_too(twins: list[str]) -> None:
    times = probe(twins[0]).times
    plan = Plan(VideoConfig(size=16), FlowConfig())
    assert all(load_clip(twins[0], times, plan, seed).times[-1] > 0.9 * times[-1] for seed in range(5))
