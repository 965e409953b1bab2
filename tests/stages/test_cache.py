from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.features import LIMIT, FeatureStore
from pipeline.data.findings import Findings
from pipeline.errors import ConfigError
from pipeline.stages.cache import Cache, cache_text, format_size, manage_cache

DAY = 86400.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(LIMIT, "1MB")
    return tmp_path / "cache"


def fill(count: int, days: float = 3.0) -> int:
    """Store some entries, one used each day; the size of one."""
    store = FeatureStore()
    for n in range(count):
        key = f"{n:x}" * 64
        store.put(key, {"rgb": np.full((10, 100), n, dtype=np.float32)})
        moment = time.time() - (days - n) * DAY
        os.utime(store.folder / key[:2] / f"{key}.safetensors", (moment, moment))
    return store.usage().size // count


def test_an_empty_cache(folder: Path) -> None:
    assert manage_cache() == Cache(str(folder), 0, 0, None, None, 10**6, 0)
    assert cache_text(manage_cache()).splitlines() == [
        f"folder    {folder}",
        "features  0 clip views, 0 B of 1 MB (VIDEO_LSTM_CACHE_LIMIT)",
    ]
    assert manage_cache(clear=True, everything=True).freed == 0
    assert not folder.exists()


def test_what_it_holds(folder: Path) -> None:
    size = fill(3)
    with Findings(str(folder), "test"):
        pass
    cache = manage_cache()
    assert (cache.entries, cache.size, cache.removed, cache.freed) == (3, 3 * size, 0, 0)
    assert cache.oldest == pytest.approx(time.time() - 3 * DAY, abs=60)
    assert cache.newest == pytest.approx(time.time() - DAY, abs=60)
    assert cache.findings >= (folder / "findings.sqlite").stat().st_size > 0
    text = cache_text(cache)
    assert f"3 clip views, {format_size(3 * size)} of 1 MB" in text
    assert "3 days ago the oldest, 24 hours ago the newest" in text
    assert "about files that were examined" in text and "removed" not in text


def test_graphs_of_the_engine_onnx_are_counted_and_go_with_all(folder: Path) -> None:
    place = folder / "exports" / "digest-1"
    place.mkdir(parents=True)
    (place / "head.onnx").write_bytes(b"0" * 2000)
    assert manage_cache().exports == 2000 and "exports   2 KB of ONNX graphs" in cache_text(manage_cache())
    assert manage_cache(clear=True).exports == 2000
    cleared = manage_cache(clear=True, everything=True)
    assert (cleared.exports, cleared.freed) == (0, 2000)


def test_a_limit_removes_the_oldest_once(folder: Path) -> None:
    size = fill(3)
    cache = manage_cache(limit=f"{2 * size}")
    assert (cache.entries, cache.removed, cache.freed) == (2, 1, size)
    assert cache.oldest == pytest.approx(time.time() - 2 * DAY, abs=60)
    assert "removed   1 clip views" in cache_text(cache)
    assert cache.limit == 10**6
    with pytest.raises(ConfigError, match=r"--limit is 'small'"):
        manage_cache(limit="small")


def test_options_that_do_not_go_together(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--all goes with --clear"):
        manage_cache(everything=True)
    with pytest.raises(ConfigError, match="one of --clear and --limit"):
        manage_cache(clear=True, limit="1GB")


def test_features_in_use_stay_under_any_limit(folder: Path) -> None:
    fill(1, days=0)
    assert manage_cache(limit="0").entries == 1


def test_clear_removes_features_and_findings_only_when_told_to(folder: Path) -> None:
    size = fill(3, days=0)
    with Findings(str(folder), "test"):
        pass
    (folder / "notes.txt").write_text("someone else's")
    cleared = manage_cache(clear=True)
    assert (cleared.entries, cleared.removed, cleared.freed) == (0, 3, 3 * size)
    assert cleared.findings > 0
    both = manage_cache(clear=True, everything=True)
    assert both.findings == 0 and both.freed == cleared.findings and both.removed == 0
    assert not (folder / "findings.sqlite").exists()
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (82_040, "82 KB"),
        (1_530_000, "1.53 MB"),
        (20 * 10**9, "20 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text
