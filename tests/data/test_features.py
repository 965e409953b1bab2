from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from pipeline.data import features as module
from pipeline.data.arrays import DamagedFileError, read_arrays, write_arrays
from pipeline.data.features import ABANDONED, IN_USE, FeatureStore, parse_size
from pipeline.errors import ConfigError, DataError

FEATURES = {"rgb": np.arange(6, dtype=np.float32).reshape(2, 3), "flow": np.ones((2, 8), dtype=np.float32)}
KEY = "ab" + "0" * 62


def key(number: int) -> str:
    return f"{number:064x}"[::-1]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def entry(store: FeatureStore, number: int = 0) -> Path:
    return store.folder / key(number)[:2] / f"{key(number)}.safetensors"


def age(store: FeatureStore, numbers: range, seconds: float) -> None:
    """Entry n was last used `seconds` ago, and n seconds after that."""
    for n in numbers:
        moment = time.time() - seconds + n
        os.utime(entry(store, n), (moment, moment))


def test_what_is_put_is_got_to_the_bit(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "not" / "there yet")
    assert store.get(KEY) is None
    store.put(KEY, FEATURES)
    found = store.get(KEY)
    assert found is not None and found.keys() == FEATURES.keys()
    assert all(np.array_equal(found[name], FEATURES[name]) and found[name].dtype == np.float32 for name in FEATURES)
    assert store.get("cd" + KEY[2:]) is None
    assert store.damaged == set()


def test_a_transposed_array_keeps_its_shape(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, {"rgb": FEATURES["rgb"].T})
    found = store.get(KEY)
    assert found is not None and np.array_equal(found["rgb"], FEATURES["rgb"].T)


def test_an_entry_is_a_safetensors_file(tmp_path: Path) -> None:
    FeatureStore(tmp_path).put(KEY, FEATURES)
    (path,) = files(tmp_path)
    assert all(np.array_equal(value, FEATURES[name]) for name, value in load_file(path).items())


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=3))
def test_arrays_of_any_shape_come_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, int]]
) -> None:
    shapes.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("arrays") / "x.safetensors"
    arrays = {n: np.random.default_rng(i).random(s, dtype=np.float32) for i, (n, s) in enumerate(shapes.items())}
    assert write_arrays(path, "seal", arrays) == path.stat().st_size
    found = read_arrays(path, "seal")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_what_was_read_outlives_its_file_and_writing_into_it_changes_nothing_else(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    found, again = store.get(KEY), store.get(KEY)
    assert found is not None and again is not None
    found["rgb"][:] = -1
    assert np.array_equal(again["rgb"], FEATURES["rgb"])
    assert store.clear()[0] == 1
    assert np.array_equal(again["rgb"], FEATURES["rgb"]) and store.get(KEY) is None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_features_that_are_kept_keep_no_file_open(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    before = len(os.listdir("/proc/self/fd"))
    kept = [store.get(KEY) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before and len(kept) == 50


@pytest.mark.parametrize("damage", [b"", b"{}", b"not safetensors at all", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
def test_a_damaged_file_counts_as_not_there_and_is_replaced(tmp_path: Path, damage: bytes) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    (path,) = files(tmp_path)
    path.write_bytes(damage)
    assert store.get(KEY) is None
    assert store.damaged == {KEY}
    store.put(KEY, FEATURES)
    assert store.get(KEY) is not None


def test_no_flipped_bit_and_no_missing_end_is_served(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    served = []
    for place in range(len(whole)):
        for changed in (whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]):
            path.write_bytes(changed)
            found = store.get(KEY)
            if found is not None and any(not np.array_equal(found[name], FEATURES[name]) for name in FEATURES):
                served.append(place)
    assert served == []
    path.write_bytes(whole)
    assert store.get(KEY) is not None


def test_an_entry_under_another_name_is_not_served(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    (path,) = files(tmp_path)
    other = "ab" + "1" * 62
    path.rename(path.with_name(f"{other}.safetensors"))
    assert store.get(other) is None and store.damaged == {other}
    with pytest.raises(DamagedFileError):
        read_arrays(path.with_name(f"{other}.safetensors"), other)


def test_a_write_that_fails_leaves_nothing_and_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.data.arrays.os.replace", full)
    with pytest.raises(DataError, match=r"No space left on device.*VIDEO_LSTM_CACHE"):
        FeatureStore(tmp_path).put(KEY, FEATURES)
    assert files(tmp_path) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("")
    store = FeatureStore(tmp_path / "features")
    assert store.get(KEY) is None
    with pytest.raises(DataError, match="cannot be stored"):
        store.put(KEY, FEATURES)


def test_several_writers_of_one_key_do_not_disturb_a_reader(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, FEATURES)
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(store.put, KEY, FEATURES) for _ in range(40)]
        found = [store.get(KEY) for _ in range(40)]
        for writer in writers:
            writer.result()
    assert all(features is not None and np.array_equal(features["rgb"], FEATURES["rgb"]) for features in found)
    assert len(files(tmp_path)) == 1


WRITER = """
import sys
from pathlib import Path
import numpy as np
from pipeline.data import features
features.IN_USE = 0.0
store = features.FeatureStore(Path(sys.argv[1]), 60_000)
wrong = 0
for n in range(120):
    key = f"{n:064x}"[::-1]
    found = store.get(key)
    wrong += found is not None and not np.array_equal(found["rgb"], np.full((4, 128), n, dtype=np.float32))
    store.put(key, {"rgb": np.full((4, 128), n, dtype=np.float32)})
print(wrong, len(store.damaged))
"""


def test_several_processes_write_read_and_evict_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [process.communicate(timeout=120) for process in running] == [("0 0\n", "")] * 2
    store = FeatureStore(tmp_path)
    assert 20_000 < store.usage().size < 70_000
    assert not list(tmp_path.rglob("*.tmp"))


def filled(folder: Path, count: int, limit: int, seconds: float = 2 * IN_USE) -> FeatureStore:
    """A store with entries 0 to count - 1, unused for a while, 0 the longest."""
    large = FeatureStore(folder, 10**9)
    for n in range(count):
        large.put(key(n), {"rgb": np.full((10, 25), n, dtype=np.float32)})
    age(large, range(count), seconds)
    return FeatureStore(folder, limit)


def there(store: FeatureStore) -> list[int]:
    known = {entry(store, n).name: n for n in range(100)}
    return sorted(known[path.name] for path in files(store.folder))


def test_the_least_recently_used_go_first_when_the_limit_is_passed(tmp_path: Path) -> None:
    size = filled(tmp_path / "one", 1, 0).usage().size
    store = filled(tmp_path / "store", 10, 10 * size)
    assert store.get(key(0)) is not None  # a use
    store.put(key(10), {"rgb": np.full((10, 25), 10, dtype=np.float32)})
    assert there(store) == [0, 3, 4, 5, 6, 7, 8, 9, 10]
    assert store.usage().size <= store.limit
    assert store.excess == 0


def test_what_was_used_within_the_hour_stays_though_the_limit_is_passed(tmp_path: Path) -> None:
    store = filled(tmp_path, 5, 100, seconds=IN_USE / 2)
    store.put(key(5), FEATURES)
    assert there(store) == [0, 1, 2, 3, 4, 5]
    assert store.excess == store.usage().size - 100
    assert store.trim(0) == (0, 0)


def test_a_use_is_noted_but_not_each_time(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, 10**9)
    store.get(key(0))
    noted = entry(store).stat().st_mtime
    assert time.time() - noted < 60
    os.utime(entry(store), (noted - 100, noted - 100))
    store.get(key(0))
    assert entry(store).stat().st_mtime == noted - 100


def test_the_folder_is_not_looked_at_for_each_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore(tmp_path, 10**6)
    looks: list[int] = []
    look = FeatureStore.usage
    monkeypatch.setattr(FeatureStore, "usage", lambda self: looks.append(0) or look(self))
    for n in range(200):
        store.put(key(n), FEATURES)
    assert 1 <= len(looks) <= 5


def test_while_another_process_evicts_none_is_waited_for(tmp_path: Path) -> None:
    store = filled(tmp_path, 5, 100)
    with FileLock(tmp_path / ".lock"):
        started = time.monotonic()
        store.put(key(5), FEATURES)
        assert time.monotonic() - started < 5
        assert there(store) == [0, 1, 2, 3, 4, 5]


def test_trim_and_clear_say_what_they_removed(tmp_path: Path) -> None:
    store = filled(tmp_path, 6, 10**9)
    size = store.usage().size // 6
    assert store.trim(10**9) == (0, 0)
    assert store.trim(4 * size) == (2, 2 * size)
    assert there(store) == [2, 3, 4, 5]
    usage = store.usage()
    assert usage.entries == 4 and usage.oldest is not None and usage.newest is not None
    assert usage.newest - usage.oldest == pytest.approx(3, abs=0.1)
    assert store.clear() == (4, 4 * size)
    assert store.usage() == module.Usage(0, 0, None, None)
    assert FeatureStore(tmp_path / "nowhere").clear() == (0, 0)


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, 10**9)
    old, new = entry(store).with_suffix(".1.tmp"), entry(store).with_suffix(".2.tmp")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * ABANDONED,) * 2)
    assert store.usage().entries == 1
    assert not old.exists() and new.exists()


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5 tb", 15 * 10**11), (" 300MB ", 3 * 10**8), ("12", 12), ("0", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--limit") == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "5GiB", "1e3", "GB", "nan"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--limit is '.*'; write a size such as"):
        parse_size(text, "--limit")


def test_folder_and_limit_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.LIMIT, raising=False)
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path))
    assert FeatureStore().folder == tmp_path / "features" and FeatureStore().limit == 20 * 10**9
    monkeypatch.setenv(module.LIMIT, "3MB")
    assert FeatureStore().limit == 3 * 10**6 and FeatureStore(limit=5).limit == 5
    monkeypatch.setenv(module.LIMIT, "three")
    with pytest.raises(ConfigError, match=module.LIMIT):
        FeatureStore()
