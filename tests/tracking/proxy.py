"""Something between a client and an MLflow server that fails in the ways that servers and networks do."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FULL = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "(sqlite3.OperationalError) database or disk is full\n[SQL"}
BUSY = {"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5 overflow 10 reached, connection timed out"}


class Proxy:
    """Forwards to `target`, or fails.

    Attributes:
        mode: ok; 500, full, busy: an answer; cut: none; lost: none, though the server did it; hang: none for long.
        login: user and password that are asked for; None: none.
        requests: paths of what was asked for, with the method.
        only: fails only where this says so of a path.
    """

    def __init__(self, target: str) -> None:
        self.mode = "ok"
        self.login: tuple[str, str] | None = None
        self.requests: list[str] = []
        self.only: Callable[[str], bool] = lambda path: True
        self.release = threading.Event()
        self._target = urlsplit(target)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        """For clients."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Answer no more."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append(f"{self.command} {self.path}")
                self.close_connection = True
                if proxy.login is not None:
                    given = base64.b64encode(":".join(proxy.login).encode()).decode()
                    if self.headers.get("Authorization") != f"Basic {given}":
                        self._answer(401, b"You are not authenticated.")
                        return
                mode = proxy.mode if proxy.only(self.path) else "ok"
                if mode == "hang":
                    proxy.release.wait(30)
                if mode in ("hang", "cut"):
                    return
                if mode == "500":
                    self._answer(500, b"<html>Internal Server Error</html>")
                elif mode in ("full", "busy"):
                    said = FULL if mode == "full" else BUSY
                    self._answer(503 if mode == "full" else 400, json.dumps(said).encode())
                else:
                    status, answer = self._forward(body)
                    if mode != "lost":
                        self._answer(status, answer)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def _forward(self, body: bytes) -> tuple[int, bytes]:
                there = http.client.HTTPConnection(str(proxy._target.hostname), proxy._target.port, timeout=60)
                kept = ("host", "connection", "accept-encoding", "authorization")
                headers = {key: value for key, value in self.headers.items() if key.lower() not in kept}
                there.request(self.command, self.path, body, headers)
                answer = there.getresponse()
                return answer.status, answer.read()

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", "application/json")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

        return Handler
