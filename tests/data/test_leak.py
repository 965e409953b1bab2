"""Twenty epochs over real clips: what a process holds after the second it holds after the last."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from pipeline.config import AugmentationConfig, FlowConfig, VideoConfig
from pipeline.data.batches import ClipFile, ClipLoader, decoding_pool, view_seed
from pipeline.data.clips import Plan
from pipeline.video.reader import probe

EPOCHS, CLIPS, WORKERS = 20, 12, 2
MEGABYTE = 1 << 20
PATTERNS = ("swipes/*/*.mp4", "ut_interaction/*/*.avi")


def test_memory_of_parent_and_workers_is_flat(data_root: Path) -> None:
    paths = [path for pattern in PATTERNS for path in sorted(data_root.glob(pattern))[::12][: CLIPS // 2]]
    assert len(paths) == CLIPS
    infos = [probe(str(path)) for path in paths]
    files = [ClipFile(str(path), 0, info.times, info.duration) for path, info in zip(paths, infos, strict=True)]
    plan = Plan(VideoConfig(streams="rgb+flow", frames=4, size=32), FlowConfig(size=32), AugmentationConfig(flip=0.5))
    loader = ClipLoader(files, plan, 4, decoding_pool(plan, WORKERS))
    held: list[dict[int, int]] = []
    for epoch in range(EPOCHS):
        floor: dict[int, int] = {}  # it goes up and down with the clips; a leak lifts the lowest value
        for batch in loader.batches([(index, view_seed(0, epoch, index)) for index in range(CLIPS)]):
            assert len(batch.labels) == 4
            for pid in (os.getpid(), *loader.pool.pids):
                now = psutil.Process(pid).memory_info().rss
                floor[pid] = min(floor.get(pid, now), now)
        held.append(floor)
    assert all(now.keys() == held[1].keys() for now in held[1:]) and len(held[1]) == WORKERS + 1
    for pid, before in held[1].items():
        grown = [now[pid] / before - 1 for now in held[2:]]
        assert max(grown) < 0.05, f"{[now[pid] // MEGABYTE for now in held]} MB"
