"""The benchmark of classification: it compares the same answers, and refuses others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig
from pipeline.video.writer import write_video


@pytest.fixture(scope="module")
def bench() -> Any:
    import bench_classify

    return bench_classify


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        frames = np.random.default_rng(number).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
        write_video(str(folder / f"{number}.mp4"), frames, 25.0)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def model(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = Config(
        video=VideoConfig(frames=8, size=32),
        encoder=EncoderConfig(name="mobilenet_v3_small", weights="none", frozen=True),
        recurrent=RecurrentConfig(hidden=8, layers=1),
    )
    return bench.save_model(tmp_path_factory.mktemp("model") / "model", config)


def test_the_loop_everyone_writes_gives_our_answers(bench: Any, model: Any, clips: list[str]) -> None:
    bench.check_answers(clips, model)


def test_other_answers_are_not_compared(
    bench: Any, model: Any, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "loop", lambda paths, *_: (np.full(5, 0.2) for _ in paths))
    with pytest.raises(RuntimeError, match="the answers differ"):
        bench.check_answers(clips, model)


def test_a_rate_counts_what_comes_after_the_warm_up(bench: Any) -> None:
    rate = bench.timed(iter(range(30)), 10)
    assert rate.clips > 0 and rate.cpu >= 0


def test_a_stream_costs_the_same_however_long_it_goes_on(bench: Any, tmp_path: Path) -> None:
    assert 0.2 < bench.stream_drift(tmp_path / "model", 400) < 5
