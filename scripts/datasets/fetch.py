"""One file over HTTP: retries, going on where it was cut off, a checksum."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pipeline.errors import DataError
from pipeline.stages.progress import say

ATTEMPTS = 6
"""Tries without a new byte before a download is given up."""
WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, doubled with each; and the most."""
TIMEOUT = 60.0
"""Seconds without an answer after which a connection is cut."""
BLOCK = 1 << 20
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP answers that may be different the next time."""


class PassingError(Exception):
    """A failure that the next try may not have; `wait`: seconds that the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def obtain(url: str, target: Path, sha256: str | None, double: bool) -> str:
    """The digest of a file that is there, whole and unchanged, fetched if need be."""
    record = target.with_name(target.name + ".sha256")
    expected = sha256 or (record.read_text().split()[0] if record.exists() else None)
    here = target.exists()
    if not here:
        fetch(url, target, double)
    digest = sha256_of(target)
    if expected is None:
        say(f"{target.name}: its checksum is not known beforehand; {record.name} records {digest}")
        write_text(record, f"{digest}  {target.name}\n")
    elif digest == expected:
        say(f"{target.name}: checksum as {'published' if sha256 else 'recorded'}")
    elif here:
        raise DataError(f"{target} has changed (sha256 {digest}, not {expected}); remove it to fetch it again")
    else:
        target.unlink()
        source = "" if sha256 else f"; remove {record} if it was published anew"
        raise DataError(f"{url} gave sha256 {digest} and not {expected}, so the file was removed{source}")
    return digest


def fetch(url: str, target: Path, double: bool) -> None:
    """Download with retries, going on where the last try ended.

    Args:
        url: http or https.
        target: where the whole file appears; until then it is FILE.part, with FILE.part.json naming its version.
        double: ask for room twice, for the archive and for what is in it.

    Raises:
        DataError: the server refuses for good, or nothing came in `ATTEMPTS` tries.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url} is no http or https address; see --url")
    part = target.with_name(target.name + ".part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch_once(url, part, double)
            break
        except PassingError as error:
            got = part.stat().st_size if part.exists() else 0
            failures = 1 if got > before else failures + 1
            if failures >= ATTEMPTS:
                raise DataError(f"{url}: {error}, {failures} times in a row; try later, or a mirror (--url)") from None
            wait = max(error.wait, min(WAIT * 2 ** (failures - 1), LONGEST_WAIT))
            say(f"{target.name}: {error}; trying again in {wait:.0f} s")
            time.sleep(wait)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def _fetch_once(url: str, part: Path, double: bool) -> None:
    """One request for what is missing; returns when the file is whole."""
    note = part.with_name(part.name + ".json")
    version = _version_of_part(part, note)
    have = part.stat().st_size if version else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "video-lstm"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    with _answers(url):
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310  (`fetch` has seen the scheme)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            part.unlink(missing_ok=True)  # longer than the file is: not a beginning of it
            raise PassingError("the server has another version of the file") from None
        with response:
            start, total = _range_of(response)
            if start not in (0, have) or (start and _version(response) not in ("", version)):
                part.unlink()
                raise PassingError("the server sent another part, or another version, of the file")
            _check_room(part, (total or 0) - start, (total or 0) if double else 0)
            write_text(note, json.dumps({"version": _version(response)}))
            if have:
                say(f"{part.stem}: " + (f"going on at {have / 1e6:.1f} MB" if start else "starting anew, it changed"))
            with part.open("ab" if start else "wb") as file, _bar(part.stem, start, total) as advance:
                while block := response.read(BLOCK):
                    file.write(block)
                    advance(len(block))
    size = part.stat().st_size
    if total is None:
        say(f"{part.stem}: the server tells no length; this file cannot be told whole from cut off")
    if total is not None and size < total:
        raise PassingError(f"the connection was cut after {size / 1e6:.1f} of {total / 1e6:.1f} MB")
    if total is not None and size > total:
        part.unlink()
        raise PassingError("the server sent more than it announced")


def _version_of_part(part: Path, note: Path) -> str:
    """The version that a half-done download is a part of; empty where it cannot be gone on with."""
    try:
        version = json.loads(note.read_text())["version"] if part.stat().st_size else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return version if isinstance(version, str) else ""


def _version(response: http.client.HTTPResponse) -> str:
    """What names this version of the file: a strong ETag, else the date of its last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _range_of(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """(first byte, length of the whole file or None) of an answer."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


@contextmanager
def _answers(url: str) -> Iterator[None]:
    """Tell failures that may pass from those that will not."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code in PASSING:
            raise PassingError(f"the server answers {error.code}", _retry_after(error)) from None
        raise DataError(f"{url}: the server answers {error.code} {error.reason}; try a mirror (--url)") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(f"{url}: the server's certificate is not valid; try a mirror (--url)") from None
        raise PassingError(f"no connection ({error.reason})") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise PassingError(f"the connection broke ({str(error) or type(error).__name__})") from None


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait, given as a number or as a date; at most `LONGEST_WAIT`."""
    text = error.headers.get("Retry-After", "")
    if text.isdigit():
        return min(float(text), LONGEST_WAIT)
    date = email.utils.parsedate_tz(text)
    seconds = email.utils.mktime_tz(date) - time.time() if date else 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _check_room(part: Path, missing: int, unpacked: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing + unpacked > free:
        raise DataError(
            f"{part.parent} has {free / 1e9:.1f} GB left and {part.stem} needs {(missing + unpacked) / 1e9:.1f} GB"
            + (", unpacked about as much again as packed" if unpacked else "")
        )


@contextmanager
def _bar(name: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, completed=start)
        yield lambda count: progress.advance(task, count)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
