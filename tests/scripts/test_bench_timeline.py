"""The benchmark of recordings runs, small, and says what docs/recordings.md needs."""

import multiprocessing
from pathlib import Path

import pytest


def test_it_labels_a_recording_and_says_how_fast_and_in_how_much_memory(tmp_path: Path) -> None:
    """Here, in this process: the script itself starts one for each recording."""
    from bench_timeline import RATE, label, record

    record(tmp_path / "a.mp4", 2.0)
    answers: multiprocessing.SimpleQueue[dict[str, float]] = multiprocessing.SimpleQueue()
    label(str(tmp_path / "a.mp4"), str(tmp_path), answers)
    found = answers.get()
    assert found["moments"] == pytest.approx(2.0 * RATE, abs=1)
    assert found["speed"] > 0 and found["rss_mb"] > 50
