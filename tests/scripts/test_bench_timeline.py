"""The benchmark of recordings runs, small, and says what docs/recordings.md needs."""

import pytest


def test_it_measures_speed_and_memory_of_a_short_and_a_long_recording() -> None:
    from bench_timeline import measure

    found = measure((0.5, 1.0))
    assert found["long_moments"] == pytest.approx(2 * found["short_moments"], abs=1)
    assert found["short_speed"] > 0 and found["short_rss_mb"] > 50
    assert abs(found["rss_growth_mb"]) < found["short_rss_mb"]
