"""A web server in this process that misbehaves as it is told, for tests of fetching."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Site:
    """What the server has, and how it answers.

    Attributes:
        files: content by path, without the leading slash.
        moods: per path what it does with each request in turn, then it behaves: "503", "429", "stall", "cut", "404".
        redirects: where a path leads to.
        lengths: whether answers say how long they are.
        honest_ranges: whether a part is sent where one is asked for; else the whole file.
        asked: requests per path.
        ranges: header Range of each request that had one.
        headers: of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.moods: dict[str, list[str]] = {}
        self.redirects: dict[str, str] = {}
        self.lengths, self.honest_ranges = True, True
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.address = ""
        self.over = threading.Event()


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(site, self)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:  # clients hang up
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()


def _answer(site: Site, handler: BaseHTTPRequestHandler) -> None:
    path = handler.path.partition("?")[0].lstrip("/")
    site.asked[path] += 1
    site.headers.append(dict(handler.headers))
    mood = site.moods[path].pop(0) if site.moods.get(path) else ""
    if path in site.redirects:
        handler.send_response(302)
        handler.send_header("Location", site.redirects[path])
        handler.end_headers()
    elif mood.isdecimal() or path not in site.files:
        handler.send_error(int(mood or 404))
    elif mood == "stall":
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(site.files[path])))
        handler.end_headers()
        handler.wfile.write(site.files[path][:100])
        site.over.wait(60)
    else:
        _send(site, handler, site.files[path], mood)


def _send(site: Site, handler: BaseHTTPRequestHandler, content: bytes, mood: str) -> None:
    wanted, start = handler.headers.get("Range"), 0
    if wanted:
        site.ranges.append(wanted)
    if wanted and site.honest_ranges and handler.headers.get("If-Range", '"1"') == '"1"':
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        handler.send_response(200)
    handler.send_header("ETag", '"1"')
    if site.lengths:
        handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    end = start + (len(content) - start) // 2 if mood == "cut" else len(content)
    handler.wfile.write(content[start:end])
    if mood == "cut":
        site.over.wait(0.15)  # aiohttp passes nothing on of what comes together with the end of the connection
