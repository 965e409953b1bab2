"""The web page of running streams: a server in a thread, on this machine alone unless asked for otherwise.

Whoever can open a page on this machine's loopback may look; requests must name the loopback as their host, so that a
foreign page cannot reach in through a name of its own (DNS rebinding). On any other address a random token is needed.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from pipeline.errors import ConfigError, UserError
from pipeline.report.html import render
from pipeline.stages.watch.board import Board
from pipeline.video.overlay import jpeg

DEFAULT = "127.0.0.1:8000"
COOKIE = "video-lstm-watch"
START_SECONDS = 20.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' blob: data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, :PORT or PORT; an IPv6 address in brackets.

    Raises:
        ConfigError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"serve is '{text}', which is no HOST:PORT such as {DEFAULT}; put sources before --serve")
    return host.strip("[]") or "127.0.0.1", int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_app(board: Board, token: str | None) -> FastAPI:
    """The page, its numbers and its pictures.

    Args:
        board: what is shown.
        token: what a visitor must know; None: the server is on the loopback.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
        if token is None:
            if not is_loopback(request.url.hostname or ""):
                return Response("this page is for this machine alone", 403)
        else:
            given = request.query_params.get("token") or request.cookies.get(COOKIE) or ""
            if not secrets.compare_digest(given.encode(), token.encode()):
                return Response("open the address that video-lstm watch printed, with its token", 401)
        response = await handle(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/", response_class=HTMLResponse)
    def page() -> Response:
        text = render("watch.html", model=board.model, classes=board.classes, sources=board.sources)
        response = HTMLResponse(text)
        if token is not None:
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    @app.get("/state")
    def state(since: int = 0) -> JSONResponse:
        return JSONResponse(board.since(since))

    @app.get("/picture/{source}")
    def picture(source: int) -> Response:
        try:
            frame = board.picture(source)
        except IndexError:
            return Response("no such source", 404)
        if frame is None:
            return Response(status_code=204)  # no picture yet
        return Response(jpeg(frame), media_type="image/jpeg")

    return app


@contextmanager
def serving(board: Board, address: str) -> Iterator[str]:
    """A server while the block runs; yields the address to open.

    Raises:
        ConfigError: an address of another form.
        UserError: it is taken, or not this machine's.
    """
    host, port = parse_address(address)
    token = None if is_loopback(host) else secrets.token_urlsafe(18)
    listener = _listen(host, port)
    config = uvicorn.Config(make_app(board, token), log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="page", daemon=True)
    thread.start()
    try:
        _wait_for(server, thread)
        yield _shown(host, listener.getsockname()[1], token)
    finally:
        server.should_exit = True
        thread.join(2.0)
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(f"--serve {host}:{port}: {error.strerror}; choose another HOST:PORT") from None
    return listener


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise UserError("--serve: the page's server did not start")
        time.sleep(0.01)


def _shown(host: str, port: int, token: str | None) -> str:
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
