"""Lines, webhook, recording, latency."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import EventsConfig
from pipeline.data.moments import Moment
from pipeline.errors import ConfigError, UserError
from pipeline.stages.watch import outputs
from pipeline.stages.watch.latency import Latency
from pipeline.stages.watch.mailbox import Arrival, Gap
from pipeline.stages.watch.outputs import Recorder, Webhook, recorders
from pipeline.stages.watch.stepper import Answer
from pipeline.stages.watch.tracker import Tracker
from pipeline.video.reader import probe, read_frames

FRAME = np.full((24, 40, 3), 90, np.uint8)


class Receiver:
    """A local server that answers with the given codes in turn, then with 200."""

    def __init__(self, codes: list[int]) -> None:
        received = self.received = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = codes.pop(0) if codes else 200
                received.append((code, json.loads(body)))
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    received: list[tuple[int, dict[str, int]]]


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    found = Receiver(list(getattr(request, "param", [])))
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "FIRST_WAIT", 0.01)


@pytest.mark.parametrize("receiver", [[503, 500, 200, 404]], indirect=True)
def test_a_webhook_tries_again_but_not_what_was_refused(receiver: Receiver) -> None:
    hook = Webhook(receiver.address)
    for number in range(3):
        hook.send({"n": number})
    hook.close()
    assert receiver.received == [(503, {"n": 0}), (500, {"n": 0}), (200, {"n": 0}), (404, {"n": 1}), (200, {"n": 2})]
    assert (hook.sent, hook.failed, hook.dropped) == (2, 1, 0)


def test_a_webhook_that_nobody_answers_neither_blocks_nor_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "ROOM", 3)
    monkeypatch.setattr(outputs, "LAST_SECONDS", 0.2)
    waiting = threading.Event()
    monkeypatch.setattr(Webhook, "_post", lambda self, body: waiting.wait(5) and "again")
    hook, started = Webhook("http://127.0.0.1:9/"), time.monotonic()
    for number in range(50):
        hook.send({"n": number})
    assert time.monotonic() - started < 1 and hook.dropped >= 46
    waiting.set()
    hook.close()
    assert hook.sent + hook.failed + hook.dropped == 50 and hook.sent == 0


def test_an_address_that_is_none_is_refused() -> None:
    for address in ("ftp://x/y", "somewhere", "file:///etc/passwd"):
        with pytest.raises(ConfigError, match="no http"):
            Webhook(address)


def test_a_recording_plays_as_fast_as_the_stream_and_shortens_gaps(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", 10.0)
    for at in (3.0, 3.1, 3.4, 3.5, 60.0):  # 0.3 s without a moment are three frames; 56 s are one second
        recorder.add(FRAME, at, "wave", 0.5)
    assert not (tmp_path / "out.mp4").exists()
    recorder.close()
    info = probe(str(tmp_path / "out.mp4"))
    assert len(info.times) == 16 and [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    frame = read_frames(str(tmp_path / "out.mp4"), np.array([2])).frames[0]
    assert frame.shape[1] == 320 and abs(int(frame[50, 50, 0]) - 90) < 12
    strip = frame[-8:-4].astype(int)  # the bar below: blue up to the half, grey beyond
    assert strip[:, 40, 2].mean() > 180 > 120 > strip[:, 290, 2].mean()


def test_a_recording_of_nothing_leaves_no_file_and_a_wrong_name_is_refused(tmp_path: Path) -> None:
    Recorder(tmp_path / "a.mp4", 10.0).close()
    assert not list(tmp_path.iterdir())
    assert [one.path.name for one in recorders(str(tmp_path / "a.mkv"), 5.0, 2)] == ["a-1.mkv", "a-2.mkv"]
    with pytest.raises(UserError, match=r"record: cannot write.*a\.gif"):
        recorders(str(tmp_path / "a.gif"), 5.0, 1)
    with pytest.raises(UserError, match="there is no folder"):
        recorders(str(tmp_path / "no/a.mp4"), 5.0, 1)


def feed(tracker: Tracker, values: list[float], gap_at: int = -1) -> list[dict[str, object]]:
    lines = []
    for number, p in enumerate(values):
        gap = Gap(number - 0.5, float(number)) if number == gap_at else None
        answer = Answer(np.array([p, 1 - p]), {}, number)
        lines += tracker.answer(Arrival(Moment({}, float(number), FRAME), float(number), 0.0, gap), answer)
    return lines + tracker.flush()


def test_every_event_has_its_start_before_it() -> None:
    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    tracker = Tracker("cam", ["a", "b"], EventsConfig(min_length=1.0, merge=1.0), ["b"], 0.0, began)
    lines = feed(tracker, [0.1, 0.9, 0.8, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1])
    assert [(line["type"], line["time"]) for line in lines] == [
        ("start", 0.5), ("event", 0.5), ("start", 7.5), ("event", 7.5),
    ]  # fmt: skip
    assert lines[1]["end"] == 4.5 and lines[1]["peak"] == 0.9 and lines[1]["label"] == "a"
    assert lines[1]["at"] == "2026-01-02T03:04:05.500+00:00"
    assert tracker.events == 2


def test_a_gap_ends_what_goes_on() -> None:
    tracker = Tracker("cam", ["a", "b"], EventsConfig(min_length=0.0), [], 0.0, None)
    lines = feed(tracker, [0.9, 0.9, 0.9, 0.9], gap_at=2)
    kinds = [(line["type"], line["time"]) for line in lines]
    assert kinds == [("start", 0.0), ("event", 0.0), ("gap", 1.5), ("start", 2.0), ("event", 2.0)]
    assert lines[1]["end"] == 1.0 and "at" not in lines[1]


def test_answers_come_as_often_as_asked_and_numbers_always() -> None:
    tracker = Tracker("f", ["a", "b"], EventsConfig(min_length=99.0), [], 2.0, None)
    lines = feed(tracker, [0.9, 0.1, 0.2, 0.9, 0.9])
    assert [(line["time"], line["label"]) for line in lines] == [(0.0, "a"), (2.0, "b"), (4.0, "a")]
    numbers = feed(Tracker("f", [], EventsConfig(), [], 0.0, None), [0.25, 0.5])
    assert [line["value"] for line in numbers] == [0.25, 0.5]


def test_quantiles_are_known_to_two_percent() -> None:
    latency, rng = Latency(), np.random.default_rng(0)
    assert latency.quantile(0.5) is None
    seconds = rng.lognormal(-4, 1, 2000)
    for value in seconds:
        latency.add(float(value))
    for share in (0.5, 0.99):
        assert latency.quantile(share) == pytest.approx(np.quantile(seconds, share), rel=0.03)
    latency.add(0.0)
    latency.add(1e9)
