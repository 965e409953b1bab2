"""The benchmark of streams runs, small, and says what docs/streams.md needs."""

import json

import pytest


def test_it_measures_drift_memory_and_latency(capsys: pytest.CaptureFixture[str]) -> None:
    from bench_stream import main

    main(["--frames", "400", "--seconds", "0.4", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["frames"] == 400 and 0.1 < found["stream_drift"] < 10
    assert 0 < found["latency_p50_ms"] <= found["latency_p99_ms"]
    assert {"rss_growth_mb", "frames_per_second", "latency_4_sources_p99_ms", "dropped_4"} <= found.keys()
