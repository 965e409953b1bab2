"""Where lines and pictures go: standard output, a webhook, video files."""

from __future__ import annotations

import json
import queue
import sys
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from pipeline.disk import sync
from pipeline.errors import ConfigError, UserError
from pipeline.video.display import resize
from pipeline.video.overlay import annotated
from pipeline.video.writer import check_format, video_writer

ROOM, TRIES, FIRST_WAIT = 256, 5, 0.5
POST_SECONDS, LAST_SECONDS = 10.0, 5.0
"""Seconds that one request may take, and that those that wait have at the end."""

LONGEST_STILL = 1.0
"""Seconds: a recording shows a longer gap as this."""


def write_line(line: dict[str, Any]) -> None:
    """One line of JSON on standard output, at once."""
    sys.stdout.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


class Webhook:
    """Sends lines to an address, in a thread of its own: a receiver that is slow or away never holds the streams up.

    Each is tried `TRIES` times, with longer and longer waits; one that the receiver refuses (4xx, but 408 and 429) is
    not tried again. Where more than `ROOM` wait, new ones are dropped.

    Args:
        address: http or https.

    Attributes:
        sent, failed, dropped: counted.

    Raises:
        ConfigError: no such address.
    """

    def __init__(self, address: str) -> None:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise ConfigError(f"webhook is '{address}', which is no http:// or https:// address")
        self.sent = self.failed = self.dropped = 0
        self._address = address
        self._waiting: queue.Queue[bytes | None] = queue.Queue(ROOM)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def send(self, line: dict[str, Any]) -> None:
        """Put a line into the queue; returns at once."""
        try:
            self._waiting.put_nowait(json.dumps(line, ensure_ascii=False).encode())
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Send what waits, for `LAST_SECONDS` at most; the rest counts as dropped."""
        self._closing.set()  # nothing is waited for any more
        try:
            self._waiting.put(None, timeout=LAST_SECONDS)
            self._thread.join(LAST_SECONDS)
        except queue.Full:
            pass
        left = [line for line in list(self._waiting.queue) if line is not None]
        self.dropped += len(left)

    def _run(self) -> None:
        while (body := self._waiting.get()) is not None:
            wait = FIRST_WAIT
            for number in range(TRIES):
                outcome = self._post(body)
                if outcome != "again":
                    break
                if number + 1 < TRIES:
                    self._closing.wait(wait)
                    wait *= 2
            self.sent += outcome == "sent"
            self.failed += outcome != "sent"

    def _post(self, body: bytes) -> str:
        """sent, refused, or again."""
        headers = {"Content-Type": "application/json", "User-Agent": "video-lstm"}
        try:
            request = urllib.request.Request(self._address, body, headers)  # noqa: S310  (the scheme was checked)
            with urllib.request.urlopen(request, timeout=POST_SECONDS):  # noqa: S310
                return "sent"
        except urllib.error.HTTPError as error:
            return "refused" if 400 <= error.code < 500 and error.code not in (408, 429) else "again"
        except (OSError, ValueError):
            return "again"


class Recorder:
    """A video file of one source's moments, each with its answer written below it.

    It plays as fast as the stream did: a moment is shown until the next. The file has its name once it is whole.

    Args:
        path: its suffix chooses the format.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate = path, rate
        self._temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
        self._opened = ExitStack()
        self._write: Any = None
        self._size: tuple[int, int] | None = None
        self._start, self._written = 0.0, 0
        self._last: np.ndarray | None = None

    def add(self, frame: np.ndarray, time: float, label: str, share: float | None) -> None:
        """One moment: uint8 (H, W, 3) RGB, seconds of the stream."""
        if self._size is None:
            self._size = (frame.shape[1], frame.shape[0])
        picture = annotated(resize(frame, *self._size), label, share)
        if self._write is None:
            height, width = picture.shape[:2]
            self._write = self._opened.enter_context(video_writer(str(self._temporary), width, height, self._rate))
            self._start = time
        due = round((time - self._start) * self._rate)
        if due - self._written > LONGEST_STILL * self._rate:  # a gap
            self._start += (due - self._written) / self._rate - LONGEST_STILL
            due = round((time - self._start) * self._rate)
        while self._last is not None and self._written < due:
            self._show(self._last)
        self._last = picture

    def close(self) -> None:
        """Finish the file."""
        if self._last is not None:
            self._show(self._last)
        self._opened.close()
        if self._temporary.exists():
            sync(self._temporary)
            self._temporary.replace(self.path)

    def _show(self, picture: np.ndarray) -> None:
        self._write(picture)
        self._written += 1


def recorders(path: str, rate: float, sources: int) -> list[Recorder]:
    """One for each source: FILE.mp4, or FILE-1.mp4, FILE-2.mp4, ...

    Raises:
        UserError: it cannot be written there.
    """
    try:
        check_format(path)
    except ValueError as error:
        raise UserError(f"record: {error}") from None
    found = Path(path)
    if not found.parent.is_dir():
        raise UserError(f"record: there is no folder {found.parent}")
    if sources == 1:
        return [Recorder(found, rate)]
    return [Recorder(found.with_name(f"{found.stem}-{i}{found.suffix}"), rate) for i in range(1, sources + 1)]
