from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.features import FeatureStore

FEATURES = {"rgb": np.arange(6, dtype=np.float32).reshape(2, 3), "flow": np.ones((2, 8), dtype=np.float32)}
KEY = "ab" + "0" * 62


def test_what_is_put_is_got_to_the_bit(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "not" / "there yet")
    assert store.get(KEY) is None
    store.put(KEY, FEATURES)
    found = store.get(KEY)
    assert found is not None and found.keys() == FEATURES.keys()
    assert all(np.array_equal(found[name], FEATURES[name]) and found[name].dtype == np.float32 for name in FEATURES)
    assert store.get("cd" + KEY[2:]) is None


def test_a_transposed_array_keeps_its_shape(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, {"rgb": FEATURES["rgb"].T})
    found = store.get(KEY)
    assert found is not None and np.array_equal(found["rgb"], FEATURES["rgb"].T)


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_damaged_file_counts_as_not_there_and_is_replaced(tmp_path: Path, damage: bytes) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(damage)
    assert store.get(KEY) is None
    store.put(KEY, FEATURES)
    assert store.get(KEY) is not None


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("pipeline.data.features.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        FeatureStore(tmp_path).put(KEY, FEATURES)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_several_writers_of_one_key_do_not_disturb_a_reader(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(store.put, KEY, FEATURES) for _ in range(40)]
        found = [store.get(KEY) for _ in range(40)]
        for writer in writers:
            writer.result()
    assert all(features is not None and np.array_equal(features["rgb"], FEATURES["rgb"]) for features in found)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
