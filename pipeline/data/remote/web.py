"""One attempt to fetch a file over HTTP, by the session of fsspec's HTTP file system (aiohttp).

fsspec's own reading asks for blocks of a file whose size is known, or for all of it at once. Here one answer is read as
it comes, and one that was cut off goes on where it ended.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import yarl
from fsspec.asyn import sync

from pipeline.data.remote.answers import check_status
from pipeline.data.remote.part import Interrupted, Part
from pipeline.data.remote.systems import file_system
from pipeline.errors import Reason

BLOCK = 1 << 18
HELD = 1.0
"""Seconds for which an answer may wait for room before its connection is given back; the turn comes in less."""
AGENT = {"User-Agent": "video-lstm", "Accept-Encoding": "identity"}


def copy_from_web(part: Part) -> None:
    """One attempt.

    Redirects are followed, to http and https alone. Passwords are those of the address or of ~/.netrc, proxies those of
    the environment.

    Raises:
        Interrupted: another attempt may succeed.
        VideoError: none will.
    """
    with _translated(part):
        with _answer(part) as (answer, run):
            size = _begin(part, answer)
            if part.admit(size, HELD):
                _copy(part, answer, run)
                return
        part.admit(size)  # no connection is held meanwhile
        with _answer(part) as (answer, run):
            part.admit(_begin(part, answer))
            _copy(part, answer, run)


@contextmanager
def _answer(part: Part) -> Iterator[tuple[aiohttp.ClientResponse, Callable[..., Any]]]:
    """The answer's head, and what runs its coroutines."""
    system = file_system("http", part.config.stall)
    headers = dict(AGENT)
    if part.done:
        headers["Range"] = f"bytes={part.done}-"
        headers |= {"If-Range": part.tag} if part.tag else {}
    encoded = part.address.isascii() and " " not in part.address  # a signature is of the address as it is written
    session = sync(system.loop, system.set_session)
    answer = sync(system.loop, _get, session, yarl.URL(part.address, encoded=encoded), headers)
    try:
        yield answer, lambda task, *given: sync(system.loop, task, *given)
    finally:
        system.loop.call_soon_threadsafe(answer.close)  # not `release`: what was not read is not wanted


async def _get(session: aiohttp.ClientSession, url: yarl.URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
    return await session.get(url, headers=headers)


def _begin(part: Part, answer: aiohttp.ClientResponse) -> int | None:
    """Where this answer stands in the file: its size, and `part` at the place where the answer goes on."""
    if answer.status == 416 and part.done:
        part.restart()
        raise Interrupted(Reason.NOT_READABLE, "the server does not go on where it was cut off")
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != part.done or (part.size is not None and found[2] != str(part.size)):
            part.restart()
            raise Interrupted(Reason.NOT_READABLE, "the server goes on at another place than it was cut off")
        return part.size
    check_status(part.address, answer.status, answer.headers.get("Retry-After", ""))
    part.restart()
    tag = answer.headers.get("ETag", "")
    part.tag = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
    plain = answer.headers.get("Content-Encoding", "identity").lower() == "identity"
    return answer.content_length if plain else None


def _copy(part: Part, answer: aiohttp.ClientResponse, run: Callable[..., Any]) -> None:
    while block := run(answer.content.read, BLOCK):
        part.write(block)
    if part.size is not None and part.done < part.size:
        raise part.cut()


@contextmanager
def _translated(part: Part) -> Iterator[None]:
    """What aiohttp raises, as what is to be done about it. Its texts hold whole addresses and are not passed on."""
    try:
        yield
    except (aiohttp.NonHttpUrlRedirectClientError, aiohttp.InvalidUrlRedirectClientError):
        raise part.error(Reason.NOT_READABLE, "redirected to what is neither http nor https") from None
    except aiohttp.TooManyRedirects:
        raise part.error(Reason.NOT_READABLE, "redirected too often") from None
    except (aiohttp.InvalidURL, ValueError):
        raise part.error(Reason.NOT_FOUND, "it is no address") from None
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
        raise part.error(Reason.NOT_READABLE, "the server's certificate is not trusted") from None
    except aiohttp.ClientConnectorDNSError as error:
        if getattr(error.os_error, "errno", None) == socket.EAI_AGAIN:
            raise Interrupted(Reason.NOT_READABLE, "the host's name could not be looked up") from None
        raise part.error(Reason.NOT_FOUND, "there is no such host") from None
    except TimeoutError:  # also aiohttp's
        raise Interrupted(Reason.TIMED_OUT, f"no byte in {part.config.stall:g} s") from None
    except aiohttp.ClientConnectorError:
        raise Interrupted(Reason.NOT_READABLE, "connection refused") from None
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        raise part.cut() from None
    except aiohttp.ClientError as error:
        raise Interrupted(Reason.NOT_READABLE, type(error).__name__) from None
