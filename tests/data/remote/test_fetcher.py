from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.config import FetchConfig
from pipeline.config.folders import cache_dir
from pipeline.errors import ConfigError, Reason, VideoError
from tests.web_server import Site, serving

pytest.importorskip("aiohttp", reason="fsspec's HTTP needs aiohttp")

from pipeline.data.remote import part
from pipeline.data.remote.fetcher import Fetcher
from pipeline.data.remote.room import Room, Stopped

QUICK = FetchConfig(stall=0.3, seconds=20.0, retries=2)
MOVIE = bytes(range(256)) * 200


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(part, "BACKOFF", 0.01)
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as found:
        yield found


def fetched(paths: list[str], config: FetchConfig = QUICK) -> list[bytes | VideoError]:
    """What becomes of each path, as a reader of one after the other sees it."""
    found: list[bytes | VideoError] = []
    with closing(Fetcher(paths, config)) as fetcher:
        for index in range(len(paths)):
            local = fetcher[index]
            found.append(Path(local).read_bytes() if isinstance(local, str) else local)
            fetcher.release(index)
    return found


def one(path: str, config: FetchConfig = QUICK) -> bytes | VideoError:
    return fetched([path], config)[0]


def left() -> list[str]:
    return [name for name in os.listdir(Path(cache_dir()) / "fetched") if name != ".lock"]


@pytest.mark.parametrize(
    ("moods", "lengths", "asked"),
    [([], True, 1), ([], False, 1), (["503", "429"], True, 3), (["stall"], True, 2), (["cut", "cut", "cut"], True, 4)],
)
def test_a_file_arrives_whole_however_the_server_behaves(
    site: Site, moods: list[str], lengths: bool, asked: int
) -> None:
    site.files["a.mp4"], site.moods["a.mp4"], site.lengths = MOVIE, moods, lengths
    assert one(f"{site.address}/a.mp4") == MOVIE
    assert site.asked["a.mp4"] == asked and left() == []


def test_a_cut_file_goes_on_where_it_ended_or_anew_where_the_server_cannot(site: Site) -> None:
    site.files["a.mp4"], site.moods["a.mp4"] = MOVIE, ["cut"]
    assert one(f"{site.address}/a.mp4") == MOVIE and site.ranges == [f"bytes={len(MOVIE) // 2}-"]
    site.moods["a.mp4"], site.honest_ranges = ["cut"], False
    assert one(f"{site.address}/a.mp4") == MOVIE and len(site.ranges) == 2


def test_what_cannot_be_fetched_is_an_error_with_its_reason_and_the_others_arrive(site: Site) -> None:
    files = {"a.mp4": MOVIE, "gone": b"", "busy.mp4": MOVIE, "slow.mp4": MOVIE, "b.mp4": MOVIE[::-1]}
    site.files = {name: content for name, content in files.items() if name != "gone"}
    site.moods = {"busy.mp4": ["503"] * 9, "slow.mp4": ["stall"] * 9}
    site.redirects = {"file": "file:///etc/passwd", "moved": "/a.mp4", "loop": "/loop"}
    names = ["a.mp4", "gone", "busy.mp4", "slow.mp4", "file", "moved", "loop", "b.mp4"]
    found = fetched([f"{site.address}/{name}" for name in names] + ["http://127.0.0.1:1/x.mp4"])
    assert [found[0], found[5], found[7]] == [MOVIE, MOVIE, MOVIE[::-1]]
    errors = {name: (error.reason, error.detail) for name, error in zip([*names, "refused"], found, strict=True)
              if isinstance(error, VideoError)}  # fmt: skip
    assert errors == {
        "gone": (Reason.NOT_FOUND, ""),
        "busy.mp4": (Reason.NOT_READABLE, "HTTP status 503; attempts: 3"),
        "slow.mp4": (Reason.TIMED_OUT, "no byte in 0.3 s; attempts: 3"),
        "file": (Reason.NOT_READABLE, "redirected to what is neither http nor https"),
        "loop": (Reason.NOT_READABLE, "redirected too often"),
        "refused": (Reason.NOT_READABLE, "connection refused; attempts: 3"),
    }


def test_a_server_that_trickles_is_given_up_in_time(site: Site) -> None:
    site.files["a.mp4"], site.moods["a.mp4"] = MOVIE, ["stall"] * 9
    began = time.monotonic()
    error = one(f"{site.address}/a.mp4", FetchConfig(stall=0.2, seconds=0.5, retries=50))
    assert isinstance(error, VideoError) and error.reason is Reason.TIMED_OUT
    assert "0.5 s" in error.detail and time.monotonic() - began < 8


@pytest.mark.parametrize("lengths", [True, False])
def test_the_folder_never_holds_more_than_its_limit(site: Site, lengths: bool) -> None:
    site.files = {f"{n}.mp4": MOVIE[: 20_000 + 3000 * (n % 5)] for n in range(24)} | {"large.mp4": MOVIE * 3}
    site.lengths = lengths
    names = list(site.files)
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            sizes = []
            for folder, _, files in os.walk(cache_dir()):
                for name in files:
                    try:
                        sizes.append(os.stat(Path(folder) / name).st_size)
                    except OSError:
                        continue
            most[0] = max(most[0], sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = fetched([f"{site.address}/{name}" for name in names], FetchConfig(cache=0.08, stall=5, retries=1))
    over.set()
    watcher.join()
    assert found[:-1] == [site.files[name] for name in names[:-1]]
    assert isinstance(found[-1], VideoError) and found[-1].reason is Reason.TOO_LARGE
    assert 20_000 <= most[0] <= 80_000


def test_what_a_killed_run_has_left_goes_and_what_another_run_uses_stays(site: Site) -> None:
    site.files["a.mp4"] = MOVIE
    folder = Path(cache_dir()) / "fetched" / "killed"
    folder.mkdir(parents=True)
    (folder / "0.mp4").write_bytes(MOVIE)
    with closing(Fetcher([f"{site.address}/a.mp4"], QUICK)) as first:
        kept = first[0]
        assert not folder.exists() and isinstance(kept, str)
        assert one(f"{site.address}/a.mp4") == MOVIE and Path(kept).exists()
    assert left() == []


def test_a_room_gives_places_in_order_so_that_nobody_waits_for_ever() -> None:
    room, order = Room(10), []

    def take(ticket: int, size: int | None) -> None:
        room.take(ticket, size)
        order.append(ticket)

    threads = [threading.Thread(target=take, args=given) for given in ((2, 1), (1, None), (0, 6))]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    assert order == [0] and room.used == 6
    room.release(0)
    threads[1].join(5)
    assert order == [0, 1] and room.used == 10
    room.settle(1, 4)
    threads[0].join(5)
    assert order == [0, 1, 2] and room.used == 5
    room.stop()
    with pytest.raises(Stopped):
        room.take(3, 1)


def test_an_unknown_kind_of_address_or_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"ftp://host/a\.mp4: only s3://, gs://, http://"):
        Fetcher(["ftp://host/a.mp4"], QUICK)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"gs://bucket/a.mp4: needs .* pip install gcsfs"):
        Fetcher(["gs://bucket/a.mp4"], QUICK)
