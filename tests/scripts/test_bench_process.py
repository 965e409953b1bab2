"""The benchmark of the process's settings: what it compares."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def bench() -> Any:
    import bench_process

    return bench_process


def test_each_way_runs_in_a_process_of_its_own_that_is_told_nothing_else(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the settings save can be seen in the page faults, and the user's own do not hide it."""
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside other tests two would wait for each other
    found = {way: bench.in_a_process("encode", way) for way in ("without", "with")}
    assert found["with"]["faults"] < 0.1 * found["without"]["faults"]
    assert all(one["ms"] > 0 and one["peak"] > 100 for one in found.values())


def test_a_ratio_above_one_means_that_the_setting_helps(bench: Any) -> None:
    found = {
        "encode": {
            "without": {"ms": 30.0, "faults": 9.0, "peak": 1.0},
            "with": {"ms": 20.0, "faults": 0.0, "peak": 1.0},
        },
        "lengths": {
            way: {"ms": ms, "faults": 0.0, "peak": 1.0} for way, ms in (("without", 9), ("memory", 6), ("with", 3))
        },
    }
    assert bench.ratios(found) == {"encode": 1.5, "lengths_memory": 1.5, "lengths": 3.0}
    assert json.loads(json.dumps(bench.ratios(found))) and "| encode | with | 20.0 | 0 | 1 | 1.50 |" in bench.table(
        found
    )
