from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from pipeline.errors import Reason, VideoError
from pipeline.stages.serve import fetch as fetching
from pipeline.stages.serve.fetch import fetch


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind = self.path.strip("/").partition("?")[0]
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()
            return
        if kind == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        if kind == "claims":
            self.send_header("Content-Length", "5000")
        if kind == "cut":
            self.send_header("Content-Length", "500")
        self.end_headers()
        try:
            for _ in range({"slow": 100, "endless": 10**6}.get(kind, 1)):
                self.wfile.write(b"video " * 10)
                time.sleep(0.1 if kind == "slow" else 0)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def got(address: str, most: int = 1000, seconds: float = 5.0) -> bytes:
    file = io.BytesIO()
    fetch(urlsplit(address), file, most, seconds)
    return file.getvalue()


def test_a_file_is_fetched(site: str) -> None:
    assert got(f"{site}/good?x=1") == b"video " * 10


@pytest.mark.parametrize(
    ("what", "reason", "said"),
    [("redirect", Reason.NOT_READABLE, "a redirect, which is not followed"), ("missing", Reason.NOT_FOUND, ""),
     ("claims", Reason.TOO_LARGE, "0.0 MB, over 0.001 MB"), ("endless", Reason.TOO_LARGE, "over 0.001 MB"),
     ("cut", Reason.NOT_READABLE, "not fetched: IncompleteRead")],
)  # fmt: skip
def test_what_cannot_be_had_says_why(site: str, what: str, reason: Reason, said: str) -> None:
    with pytest.raises(VideoError) as caught:
        got(f"{site}/{what}")
    assert caught.value.reason is reason
    assert said in caught.value.detail or "ended before" in caught.value.detail


def test_a_server_that_drips_is_left(site: str) -> None:
    begin = time.monotonic()
    with pytest.raises(VideoError) as caught:
        got(f"{site}/slow", most=10**6, seconds=0.5)
    assert caught.value.reason is Reason.TIMED_OUT
    assert time.monotonic() - begin < 4


def test_a_name_that_leads_to_this_machine_is_refused_before_a_connection(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server's owner decides where a name leads: today to his machine, tomorrow to the server itself."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetching.socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(VideoError, match="not allowed"):
        got(site.replace("127.0.0.1", "clips.example"))
    assert asked == ["clips.example"]


def test_no_server_is_one_line() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(VideoError) as caught:
        got(f"http://127.0.0.1:{port}/a.mp4")
    assert caught.value.detail == "not fetched: ConnectionRefusedError"
