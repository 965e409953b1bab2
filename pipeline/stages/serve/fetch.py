"""Fetching a file from an allowed address: no redirects, no proxy, no more bytes and seconds than were granted."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from typing import BinaryIO
from urllib.parse import SplitResult

from pipeline.data.remote.answers import refused
from pipeline.errors import Reason, VideoError
from pipeline.stages.serve.allowed import REFUSED, may_connect

BLOCK = 1 << 18


def fetch(parts: SplitResult, file: BinaryIO, most: int, seconds: float) -> None:
    """Copy what is at an address into a file.

    The name is looked up once, and the connection goes to the address that was checked: a name server that answers
    differently the next time gains nothing.

    Args:
        parts: of an address that `Allowed.url` lets through.
        file: to write into.
        most: bytes.
        seconds: for all of it.

    Raises:
        VideoError: it cannot be had, or is too large.
    """
    address, until = parts.geturl(), time.monotonic() + seconds
    connection = _Connection(parts, until)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"User-Agent": "video-lstm", "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        _check(address, answer, most)
        size = 0
        while block := answer.read1(BLOCK):
            size += len(block)
            if size > most:
                raise VideoError(address, Reason.TOO_LARGE, f"over {most / 1e6:g} MB")
            file.write(block)
            connection.limit()
        if answer.length:
            raise VideoError(address, Reason.NOT_READABLE, "the connection ended before the file did")
    except TimeoutError:
        raise VideoError(address, Reason.TIMED_OUT, f"not fetched in {seconds:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise VideoError(address, Reason.NOT_READABLE, f"not fetched: {type(error).__name__}") from None
    finally:
        connection.close()


def _check(address: str, answer: http.client.HTTPResponse, most: int) -> None:
    if 300 <= answer.status < 400:
        raise VideoError(address, Reason.NOT_READABLE, "a redirect, which is not followed")
    if answer.status != 200:
        raise refused(address, answer.status)
    if answer.length is not None and answer.length > most:
        raise VideoError(address, Reason.TOO_LARGE, f"{answer.length / 1e6:.1f} MB, over {most / 1e6:g} MB")


class _Connection(http.client.HTTPConnection):
    """To an address that may be connected to, until a moment of the monotonic clock."""

    def __init__(self, parts: SplitResult, until: float) -> None:
        assert parts.hostname is not None
        self._secure, self._until = parts.scheme == "https", until
        super().__init__(parts.hostname.rstrip("."), parts.port or (443 if self._secure else 80))

    def connect(self) -> None:
        """Look the name up, take the first address that may be used, and speak TLS to it where that is asked for."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(one[4][0]) for one in found if may_connect(str(one[4][0]), self.host)]
        if not addresses:
            raise VideoError(self.host, Reason.NOT_READABLE, REFUSED)
        self.sock = socket.create_connection((addresses[0], self.port), timeout=self._left())
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
        self.limit()

    def limit(self) -> None:
        """Let the next operation take what is left of the time."""
        left = self._left()
        if self.sock is not None:  # an answer that ends with the connection has taken it over
            self.sock.settimeout(left)

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left
