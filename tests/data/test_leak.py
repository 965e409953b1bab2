"""Twenty epochs over real clips: what a process holds after the second it holds after the last."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.config import AugmentationConfig, FlowConfig, VideoConfig
from pipeline.data.batches import ClipLoader
from pipeline.data.clip_file import ClipFile
from pipeline.data.clips import Plan
from pipeline.data.crew import Crew
from pipeline.data.stream import decoding_pool, view_seed
from pipeline.video.reader import probe

EPOCHS, CLIPS, WORKERS = 20, 12, 2
MEGABYTE = 1 << 20
PATTERNS = ("swipes/*/*.mp4", "ut_interaction/*/*.avi")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Clips that each worker has answered for, by its process id."""
    counted: Counter[int] = Counter()
    real = Crew._answered

    def count(crew: Crew, worker: Any, value: Any) -> None:
        counted[worker.process.pid] += worker.number is not None
        real(crew, worker, value)

    monkeypatch.setattr(Crew, "_answered", count)
    return counted


def test_memory_of_parent_and_workers_is_flat(data_root: Path, answers: Counter[int]) -> None:
    paths = [path for pattern in PATTERNS for path in sorted(data_root.glob(pattern))[::12][: CLIPS // 2]]
    assert len(paths) == CLIPS
    infos = [probe(str(path)) for path in paths]
    files = [ClipFile(str(path), 0, info.times, info.duration) for path, info in zip(paths, infos, strict=True)]
    plan = Plan(VideoConfig(streams="rgb+flow", frames=4, size=32), FlowConfig(size=32), AugmentationConfig(flip=0.5))
    loader = ClipLoader(files, plan, 1, decoding_pool(plan, WORKERS))
    plain: list[tuple[int, int | None]] = [(index, None) for index in range(CLIPS)]
    while len(answers) < WORKERS or min(answers.values()) < CLIPS:
        list(loader.batches(plain))  # epochs are short: without this a worker may begin with the second or the third
    held: list[dict[int, int]] = []
    for epoch in range(EPOCHS):
        floor: dict[int, int] = {}  # it goes up and down with the clips; a leak lifts the lowest value
        for batch in loader.batches([(index, view_seed(0, epoch, index)) for index in range(CLIPS)]):
            assert len(batch.targets) == 1
            for pid in (os.getpid(), *loader.pool.pids):
                now = psutil.Process(pid).memory_info().rss
                floor[pid] = min(floor.get(pid, now), now)
        held.append(floor)
    assert all(now.keys() == {os.getpid(), *answers} for now in held) and len(answers) == WORKERS
    for pid, before in held[1].items():
        grown = [now[pid] / before - 1 for now in held[2:]]
        assert max(grown) < 0.05, f"{[now[pid] // MEGABYTE for now in held]} MB"
