"""The page: who may see it, and what it shows."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest

from pipeline.data.moments import Moment
from pipeline.errors import ConfigError, UserError
from pipeline.stages.watch import server
from pipeline.stages.watch.board import POINTS, Board
from pipeline.stages.watch.mailbox import Arrival
from pipeline.stages.watch.server import parse_address, serving
from pipeline.stages.watch.stepper import Answer


def board() -> Board:
    made = Board("<b>model", ["a", "b"], ["</script>cam", "second"])
    for number in range(3):
        frame = np.full((20, 30, 3), number, np.uint8)
        answer = Answer(np.array([0.25, 0.75]), {"layer0 forget": 0.5}, number)
        made.answer(0, Arrival(Moment({}, number / 10, frame), number / 10, 0.0), answer, ["b"])
    made.event({"type": "event", "label": "b"})
    return made


def get(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_on_the_loopback_the_page_shows_pictures_and_numbers_to_this_machine_alone() -> None:
    with serving(board(), "127.0.0.1:0") as url:
        assert url.startswith("http://127.0.0.1:") and "token" not in url
        code, page, headers = get(url)
        assert code == 200 and b"&lt;b&gt;model" in page and b"</script>cam" not in page
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        now = json.loads(get(url + "state?since=0")[1])
        assert [point["time"] for point in now["sources"][0]["points"]] == [0.0, 0.1, 0.2]
        assert now["sources"][0]["points"][0]["gates"] == {"layer0 forget": 0.5} and now["number"] == 4
        later = json.loads(get(url + f"state?since={now['number']}")[1])
        assert later["events"] == [] and later["sources"][0]["points"] == []
        assert get(url + "picture/0")[1].startswith(b"\xff\xd8\xff")
        assert [get(url + f"picture/{number}")[0] for number in (1, 2, -1)] == [204, 404, 404]  # 204: none yet
        # a foreign page whose name leads to this machine
        assert get(url, Host="evil.example")[0] == 403
        assert get(url + "state", Host="evil.example:80")[0] == 403


def test_elsewhere_a_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "is_loopback", lambda host: False)  # as if the address were another
    with serving(board(), "127.0.0.1:0") as url:
        base, _, token = url.partition("?token=")
        assert len(token) >= 20
        assert [get(base + path)[0] for path in ("", "state", "picture/0")] == [401, 401, 401]
        assert get(base + "?token=wrong")[0] == 401
        code, _, headers = get(url)
        cookie = headers["set-cookie"]
        assert code == 200 and "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
        assert get(base + "state", Cookie=cookie.split(";")[0])[0] == 200


def test_addresses() -> None:
    assert parse_address("127.0.0.1:8000") == ("127.0.0.1", 8000)
    assert parse_address(":80") == parse_address("80") == ("127.0.0.1", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert [server.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "x.org")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    for wrong in ("a.mp4", "127.0.0.1", "host:99999"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            parse_address(wrong)


def test_an_address_that_is_taken_is_an_error_in_one_line() -> None:
    with serving(board(), "127.0.0.1:0") as url:
        taken = url.removeprefix("http://").rstrip("/")
        with pytest.raises(UserError, match=r"in use; choose another HOST:PORT"), serving(board(), taken):
            pass


def test_a_board_does_not_grow_and_may_be_read_while_it_is_written() -> None:
    made, wrong = board(), []

    def look() -> None:
        while not done.is_set():
            seen: dict[str, Any] = made.since(0)
            numbers = [point["number"] for point in seen["sources"][0]["points"]]
            wrong.extend([numbers] if numbers != sorted(set(numbers)) else [])

    done = threading.Event()
    thread = threading.Thread(target=look)
    thread.start()
    frame = np.zeros((2, 2, 3), np.uint8)
    for number in range(POINTS + 100):
        made.answer(0, Arrival(Moment({}, 1.0, frame), 1.0, 0.0), Answer(np.array([1.0, 0.0]), {}, number), [])
    done.set()
    thread.join(10)
    assert not wrong and len(made.since(0)["sources"][0]["points"]) == POINTS
