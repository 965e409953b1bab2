"""The remembered findings: trusted by content, and by path only while the file is the one that was read."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import findings
from pipeline.data.findings import Finding, Findings, settled, signature


def finding(digest: str = "d" * 64, frames: int = 3, **more: object) -> Finding:
    values = {"width": 4, "height": 2, "codec": "h264", "marks": ("hdr", "rotated"), "damage": "3 of 5"} | more
    return Finding("ok", "", digest, np.arange(frames) / 29.97, fingerprint=b"\0\1look", **values)  # type: ignore[arg-type]


def same(one: Finding | None, two: Finding) -> bool:
    assert one is not None
    np.testing.assert_array_equal(one.times, two.times)
    return all(getattr(one, name) == getattr(two, name) for name in (*findings._RECORD, "digest", "fingerprint"))


@pytest.fixture
def video(tmp_path: Path) -> str:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"content")
    old = path.stat().st_mtime - 100
    os.utime(path, (old, old))
    return str(path)


def test_a_finding_comes_back_by_path_and_by_content(tmp_path: Path, video: str) -> None:
    with Findings(str(tmp_path / "cache"), "opencv 5") as store:
        store.add(video, finding(), signature(video))
    with Findings(str(tmp_path / "cache"), "opencv 5") as store:
        assert same(store.at(video), finding())
        assert same(store.of("d" * 64, ".mp4"), finding())
        assert store.of("d" * 64, ".avi") is None
        assert store.at(str(tmp_path / "other.mp4")) is None
    with Findings(str(tmp_path / "cache"), "opencv 6") as store:
        assert store.at(video) is None and store.of("d" * 64, ".mp4") is None


@pytest.mark.parametrize("change", ["content", "time", "replaced", "gone"])
def test_a_path_is_not_trusted_after_any_change(tmp_path: Path, video: str, change: str) -> None:
    with Findings(str(tmp_path / "cache"), "x") as store:
        store.add(video, finding(), signature(video))
        before = os.stat(video)
        if change == "content":
            Path(video).write_bytes(b"CONTENT")
            os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))  # even with its old time: ctime tells
        elif change == "time":
            os.utime(video)
        elif change == "replaced":
            (tmp_path / "new").write_bytes(b"content")
            os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
            os.replace(tmp_path / "new", video)
        else:
            os.unlink(video)
        assert store.at(video) is None
        assert same(store.of("d" * 64, ".mp4"), finding())


def test_a_file_that_was_just_written_is_not_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new.mp4").write_bytes(b"x")
    assert not settled(str(tmp_path / "new.mp4"))
    monkeypatch.setattr(findings, "SETTLED_NS", 0)
    assert settled(str(tmp_path / "new.mp4"))


def test_a_folder_of_images_changes_with_any_of_them(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"x")
    before = signature(str(tmp_path))
    assert before == signature(str(tmp_path))
    (tmp_path / "2.png").write_bytes(b"y")
    after = signature(str(tmp_path))
    assert after != before
    (tmp_path / "2.png").rename(tmp_path / "3.png")
    assert signature(str(tmp_path)) != after


def test_what_is_no_database_is_made_again(tmp_path: Path, video: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / findings.NAME).write_bytes(b"not a database at all" * 100)
    with Findings(str(tmp_path / "cache"), "x") as store:
        store.add(video, finding())
    with Findings(str(tmp_path / "cache"), "x") as store:
        assert same(store.of("d" * 64, ".mp4"), finding())


@pytest.mark.parametrize("record", ["", "{", "[]", '{"status": "ok"}', '{"status": "ok", "marks": 5}'])
def test_a_row_that_makes_no_sense_is_no_finding(tmp_path: Path, video: str, record: str) -> None:
    with Findings(str(tmp_path / "cache"), "x") as store:
        store.add(video, finding(), signature(video))
    with sqlite3.connect(tmp_path / "cache" / findings.NAME) as database:
        database.execute("UPDATE findings SET record = ?", (record,))
    with Findings(str(tmp_path / "cache"), "x") as store:
        assert store.at(video) is None and store.of("d" * 64, ".mp4") is None


def test_a_good_status_without_frames_is_no_finding(tmp_path: Path, video: str) -> None:
    with Findings(str(tmp_path / "cache"), "x") as store:
        store.add(video, finding(frames=0))
        assert store.of("d" * 64, ".mp4") is None


def test_a_folder_that_cannot_be_used_is_replaced_for_this_process(tmp_path: Path, video: str) -> None:
    (tmp_path / "file").touch()
    with Findings(str(tmp_path / "file"), "x") as store:
        store.add(video, finding())
    with Findings(str(tmp_path / "file"), "x") as store:
        assert same(store.of("d" * 64, ".mp4"), finding())


WRITER = """
import os, sys
from pipeline.data.findings import Finding, Findings
import numpy as np
store = Findings(sys.argv[1], "x")
for number in range(200):
    store.add("x.mp4", Finding("ok", "", f"{sys.argv[2]}{number}", np.arange(5.0)))
    if number % 20 == 19:
        store.commit()
os.kill(os.getpid(), 9) if sys.argv[2] == "killed" else store.close()
"""


def test_several_writers_at_once_and_one_that_is_killed(tmp_path: Path) -> None:
    names = ("a", "b", "killed")
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in names]
    assert [process.wait(60) for process in running] == [0, 0, -9]
    with Findings(str(tmp_path), "x") as store:
        assert all(store.of(f"{name}{number}", ".mp4") for name in names for number in range(200))


@given(st.binary(min_size=1, max_size=30).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_any_name_can_be_a_path(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    folder = tmp_path_factory.mktemp("names")
    path = os.fsdecode(os.path.join(os.fsencode(folder), name + b".mp4"))
    Path(path).write_bytes(b"x")
    with Findings(str(folder / "cache"), "x") as store:
        store.add(path, finding(), signature(path))
        assert store.at(path) is not None
