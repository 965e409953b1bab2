"""What becomes of frames between a source and the model: waiting, dropping, losing the source and finding it again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import FlowConfig, VideoConfig
from pipeline.data.clips import Plan
from pipeline.data.moments import Moment
from pipeline.errors import Reason, VideoError
from pipeline.stages.watch import reader as module
from pipeline.stages.watch.mailbox import ROOM, Arrival, Gap, Mailbox
from pipeline.stages.watch.reader import Reader
from pipeline.video.live import kind_of, open_stream, shown

PLAN = Plan(VideoConfig(sampling="rate", fps=10.0, size=16), FlowConfig())
FRAME = np.zeros((16, 16, 3), np.uint8)


def arrival(time: float, gap: Gap | None = None) -> Arrival:
    return Arrival(Moment({}, time, FRAME), time, 0.0, gap)


def take_all(mailbox: Mailbox, changed: threading.Condition) -> list[Arrival]:
    with changed:
        return list(iter(mailbox.take, None))


def test_a_full_mailbox_drops_the_oldest_counts_it_and_keeps_its_gap() -> None:
    changed = threading.Condition()
    mailbox, gap = Mailbox(changed, drop=True), Gap(1.0, 2.0)
    for number in range(ROOM + 3):
        assert mailbox.put(arrival(float(number), gap if number == 1 else None))
    found = take_all(mailbox, changed)
    assert [one.time for one in found] == [3.0, 4.0, 5.0, 6.0] and mailbox.dropped == 3
    assert [one.gap for one in found] == [gap, None, None, None]


def test_a_full_mailbox_that_waits_loses_nothing() -> None:
    changed = threading.Condition()
    mailbox = Mailbox(changed, drop=False)
    thread = threading.Thread(target=lambda: [mailbox.put(arrival(float(i))) for i in range(20)])
    thread.start()
    found: list[float] = []
    deadline = time.monotonic() + 20
    while len(found) < 20 and time.monotonic() < deadline:
        assert len(mailbox) <= ROOM
        found += [one.time for one in take_all(mailbox, changed)]
        time.sleep(0.001)
    assert found == [float(i) for i in range(20)] and mailbox.dropped == 0
    thread.join(5)


def test_who_waits_for_a_closed_mailbox_goes_on() -> None:
    mailbox = Mailbox(threading.Condition(), drop=False)
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.extend(mailbox.put(arrival(float(i))) for i in range(ROOM + 1)))
    thread.start()
    mailbox.close()
    thread.join(5)
    assert not thread.is_alive() and results[-1] is False


class Scripted:
    """A source that gives so many frames at 10 per second, then is lost."""

    finite = False

    def __init__(self, frames: int) -> None:
        self._left = [(FRAME, number / 10) for number in range(frames)]

    def read(self) -> tuple[np.ndarray, float] | None:
        return self._left.pop(0) if self._left else None


def scripted(monkeypatch: pytest.MonkeyPatch, *script: int | None) -> list[float]:
    """Each opening gives so many frames, None fails, and after the last all fail; returns the times of the openings."""
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)
    opened: list[float] = []

    @contextmanager
    def fake(source: str) -> Iterator[Scripted]:
        opened.append(time.monotonic())
        frames = script[len(opened) - 1] if len(opened) <= len(script) else None
        if frames is None:
            raise VideoError(shown(source), Reason.NOT_READABLE, "nobody there")
        yield Scripted(frames)

    monkeypatch.setattr(module, "open_stream", fake)
    return opened


def read(source: str, give_up: float = 0.1, drop: bool | None = False) -> tuple[Reader, list[Arrival], list[str]]:
    said: list[str] = []
    changed = threading.Condition()
    reader = Reader(source, PLAN, changed, drop, False, give_up, time.monotonic(), said.append)
    reader.start()
    found: list[Arrival] = []
    deadline = time.monotonic() + 20
    while not (reader.mailbox.finished and not len(reader.mailbox)) and time.monotonic() < deadline:
        found += take_all(reader.mailbox, changed)
        time.sleep(0.002)
    reader.stop()
    assert reader.bug is None
    return reader, found, said


def test_a_lost_source_is_sought_again_and_the_gap_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = scripted(monkeypatch, 3, None, None, 2)
    reader, found, said = read("rtsp://user:secret@camera/1")
    gaps = [one.gap for one in found]
    assert len(found) == 5 and reader.gaps == 1
    assert [gap is not None for gap in gaps] == [False, False, False, True, False]
    assert gaps[3] is not None and gaps[3].lost == pytest.approx(found[2].time) and gaps[3].back == found[3].time
    times = [one.time for one in found]
    assert times == sorted(times) and times[3] > times[2]
    assert opened[2] - opened[1] < opened[3] - opened[2]  # longer and longer waits
    assert reader.error is not None and reader.error.reason is Reason.NOT_READABLE  # it is given up in the end
    assert not any("secret" in text for text in said) and "camera" in said[0]


def test_after_a_gap_motion_does_not_look_back_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 2, 2)
    reader, found, _ = read("rtsp://camera")
    assert [one.moment.time for one in found] == [0.0, 0.1, 0.0, 0.1] and reader.frames == 4


def test_a_file_that_is_not_there_is_not_sought_again() -> None:
    reader, found, said = read("no/such.mp4")
    assert reader.error is not None and reader.error.reason is Reason.NOT_FOUND
    assert not found and not said


def test_a_file_ends_without_an_error(tiny_clips: Path) -> None:
    reader, found, _ = read(str(sorted(tiny_clips.glob("red/*_c01.*"))[0]))
    assert reader.error is None and reader.frames >= len(found) > 0 and found[0].time == 0.0


def test_sources_are_told_apart_and_passwords_are_not_shown() -> None:
    assert [kind_of(name) for name in ("0", "-", "rtsp://a/b", "http://a", "a.mp4", "a:b.mp4", "C:\\a.mp4")] == [
        "camera", "input", "address", "address", "file", "file", "file",
    ]  # fmt: skip
    assert shown("rtsp://me:secret@host:554/live?x=1") == "rtsp://host:554/live?x=1"
    assert shown("a@b.mp4") == "a@b.mp4" and shown("-") == "standard input"


@pytest.mark.parametrize("source", ["7", "http://me:secret@127.0.0.1:9/none"])
def test_what_does_not_open_says_so_without_its_password(source: str) -> None:
    with (
        pytest.raises(VideoError, match=r"not readable \((no such camera|nothing answers)") as caught,
        open_stream(source),
    ):
        pass
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg, which makes the stream, is not installed")
def test_an_rtsp_camera_is_read_until_it_hangs_up(tmp_path: Path) -> None:
    """A real connection to a server process, RTP and all; its password stays with us."""
    file = tmp_path / "a.ts"
    made = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25", "-t", "1.2", str(file)]
    subprocess.run(made, check=True, stdin=subprocess.DEVNULL)
    command = [sys.executable, str(Path(__file__).with_name("rtsp_server.py")), str(file), "0.8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        reader, found, said = read(f"rtsp://me:secret@127.0.0.1:{port}/live", give_up=0.3, drop=True)
        server.kill()
    assert reader.frames >= 25 and reader.name == f"rtsp://127.0.0.1:{port}/live"
    assert len(found) + reader.mailbox.dropped >= 10 and found[0].moment.frame.shape == (48, 64, 3)
    times = [one.time for one in found]
    assert times == sorted(times) and 0.5 < found[-1].moment.time - found[0].moment.time < 1.2  # the stream's own times
    assert reader.error is not None and not any("secret" in text for text in [*said, str(reader.error)])
