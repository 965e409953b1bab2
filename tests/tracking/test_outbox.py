"""The journal on disk, without any store."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import outbox as module
from pipeline.tracking.outbox import Outbox, found_in, glance, place_of


def entries(box: Outbox) -> list[object]:
    return [entry["value"] for entry in box.front(100)]


def test_what_one_process_left_the_next_one_finds_in_order(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox" / "key")
    box.note(key="key", run_id=None, time=5.0)
    for value in range(5):
        box.append("tags", value=value)
    box.front(2)
    box.mark(2)
    box.note(run_id="r")
    box.release()
    assert glance(tmp_path / "outbox" / "key") == ({"key": "key", "run_id": "r", "time": 5.0}, 3)
    again = Outbox(tmp_path / "outbox" / "key")
    assert entries(again) == [2, 3, 4] and again.waiting == 3 and again.about["run_id"] == "r"
    again.append("tags", value=5)
    assert entries(again) == [2, 3, 4, 5]
    again.release(remove=True)
    assert not (tmp_path / "outbox").exists()


def test_half_a_line_that_a_kill_left_is_no_entry(tmp_path: Path) -> None:
    for cut in range(1, 32):
        box = Outbox(tmp_path / str(cut))
        box.append("tags", value=1)
        box.append("tags", value=2)
        box.release()
        journal = tmp_path / str(cut) / module.JOURNAL
        os.truncate(journal, journal.stat().st_size - cut)
        again = Outbox(tmp_path / str(cut))
        again.append("tags", value=3)
        assert entries(again) == [1, 3], cut
        again.release()


def test_a_damaged_line_costs_that_line(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    for value in range(3):
        box.append("tags", value=value)
    box.release()
    journal = tmp_path / "box" / module.JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"\xff\x00" + lines[1][2:] + lines[2])
    again = Outbox(tmp_path / "box")
    assert entries(again) == [0, 2]
    again.mark(3)
    assert again.waiting == 0


def test_a_full_disk_keeps_entries_in_memory_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, write = Outbox(tmp_path / "box"), os.write
    box.append("tags", value=0)
    with monkeypatch.context() as patch:
        room = [10]

        def some(file: int, data: bytes) -> int:
            if room:
                return write(file, data[: room.pop()])
            raise OSError(errno.ENOSPC, "no room")

        patch.setattr(os, "write", some)
        for value in (1, 2):
            with pytest.raises(TrackingError, match=r"box: cannot be written \(No space left on device\); make room"):
                box.append("tags", value=value)
        assert entries(box) == [0] and box.waiting == 3
    box.append("tags", value=3)
    assert entries(box) == [0, 1, 2, 3]


def test_a_file_waits_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 100)
    small, large = tmp_path / "small.txt", tmp_path / "large.bin"
    small.write_text("before")
    large.write_bytes(b"x" * 200)
    box = Outbox(tmp_path / "box")
    box.append_file(small, "small.txt", "report")
    box.append_file(large, "large.bin", None)
    box.append_file("text", "note.txt", None)
    small.write_text("after")
    large.unlink()
    first, second, third = box.front(10)
    assert (box.path(first).read_text(), first["place"]) == ("before", "report")
    assert box.path(second).read_bytes() == b"x" * 200 and box.path(third).read_text() == "text"
    box.mark(2)
    assert [path.name for path in (tmp_path / "box" / "files").iterdir()] == ["3"]
    with pytest.raises(TrackingError, match=r"missing: \(No such file or directory\)"):
        box.append_file(tmp_path / "missing", "missing", None)
    assert [entry["n"] for entry in box.front(10)] == [3]


def test_two_processes_never_send_one_outbox(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    with pytest.raises(TrackingError, match="another process is sending"):
        Outbox(tmp_path / "box", seconds=0.01)
    box.release()
    Outbox(tmp_path / "box", seconds=0.01).release()


def test_a_long_training_does_not_fill_the_disk_with_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHRINK", 1000)
    box = Outbox(tmp_path / "box")
    box.note(key="k", time=1.0)
    for value in range(300):
        box.append("metrics", value=value)
        assert entries(box) == [value]
        box.mark(value + 1)
    assert (tmp_path / "box" / module.JOURNAL).stat().st_size < 1500
    box.append("metrics", value=300)
    box.release()
    again = Outbox(tmp_path / "box")
    assert entries(again) == [300] and again.about == {"key": "k", "time": 1.0} and again.last == 301


def test_a_run_that_was_started_over_does_not_take_the_entries_of_the_former(tmp_path: Path) -> None:
    for number, (key, run_id) in enumerate((("a", "1"), ("b", "2"))):
        box = Outbox(tmp_path / key)
        box.note(key=key, run_id=run_id, time=10.0 - number)
        box.release()
    assert place_of(tmp_path, "a", None) == place_of(tmp_path, "x", "1") == tmp_path / "a"
    assert place_of(tmp_path, "x", "3") == place_of(tmp_path, "x", None) == tmp_path / "x"
    assert found_in(tmp_path) == [tmp_path / "b", tmp_path / "a"]  # as they began


def test_a_removed_outbox_takes_no_other_file_for_its_journal(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    box.release(remove=True)
    other = (tmp_path / "other").open("w")
    with pytest.raises(TrackingError):
        box.append("tags", value=1)
    other.close()
    assert (tmp_path / "other").read_text() == "" and json.dumps(box.about) == "{}"
