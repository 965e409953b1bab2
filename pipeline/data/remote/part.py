"""One file on its way: what of it is on the disk, and what may still be spent on it."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.addresses import shown
from pipeline.config.fetch import FetchConfig
from pipeline.config.folders import cache_dir
from pipeline.data.remote.room import Room, Stopped
from pipeline.disk import refusal
from pipeline.errors import Reason, UserError, VideoError

BACKOFF = 0.5
"""Seconds before the first further attempt, on average; each one after that waits twice as long."""
LONGEST_WAIT = 60.0
"""Seconds, also where a server asks for more."""


def unwritable(error: OSError) -> UserError:
    """The error of a cache folder that takes no more."""
    return UserError(f"{cache_dir()}: cannot be written {refusal(error)}; VIDEO_LSTM_CACHE names another folder")


class Interrupted(Exception):  # noqa: N818 - not an error yet
    """An attempt that failed as another one may not.

    Attributes:
        reason: what the file's row says if none succeeds.
        detail: the same in a few words.
        wait: seconds that the server asks for.
    """

    def __init__(self, reason: Reason, detail: str, wait: float = 0.0) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.wait = reason, detail, wait


@dataclass
class Part:
    """One file on its way.

    Attributes:
        address: where it lies.
        file: where it goes.
        room: of the cache folder.
        ticket: the file's place in the order.
        size: its bytes, as far as they are known.
        tag: what names its content, so that two attempts are of one file; empty: nobody says.
        until: when it is given up, in seconds of the monotonic clock; waiting for room does not count.
        done: bytes that are on the disk.
    """

    address: str
    file: BinaryIO
    room: Room
    ticket: int
    config: FetchConfig
    stop: threading.Event
    size: int | None = None
    tag: str = ""
    admitted: bool = False
    done: int = 0
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.config.seconds

    def error(self, reason: Reason, detail: str = "") -> VideoError:
        """Why this file cannot be had."""
        return VideoError(shown(self.address), reason, detail)

    def admit(self, size: int | None, seconds: float | None = None) -> bool:
        """Room for the file, see `Room.take`; the second time, only whether it is as large as the first time.

        Raises:
            VideoError: it is too large, or has another size than before.
        """
        if self.admitted:
            if size != self.size:
                raise self.error(Reason.NOT_READABLE, "it changed while it was fetched")
            return True
        began = time.monotonic()
        self.admitted = self.room.take(self.ticket, size, seconds)
        self.until += time.monotonic() - began
        self.size = size
        return self.admitted

    def write(self, block: bytes) -> None:
        """The next bytes.

        Raises:
            VideoError: there are more than there is room for, or the time is up.
            UserError: they cannot be written.
        """
        self.done += len(block)
        if self.done > (self.room.limit if self.size is None else self.size):
            raise self.error(Reason.TOO_LARGE, f"over {self.room.limit / 1e6:g} MB, which is fetch.cache")
        try:
            self.file.write(block)
        except OSError as error:
            raise unwritable(error) from error
        self.check()

    def restart(self) -> None:
        """Forget what is there."""
        self.file.seek(0)
        self.file.truncate()
        self.done = 0

    def check(self) -> None:
        """Whether to go on.

        Raises:
            VideoError: the time is up.
            Stopped: the reader has gone.
        """
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() > self.until:
            raise self.error(Reason.TIMED_OUT, f"not fetched in {self.config.seconds:g} s")

    def cut(self) -> Interrupted:
        """The connection ended before the file did."""
        whole = "" if self.size is None else f" of {self.size}"
        return Interrupted(Reason.NOT_READABLE, f"cut off after {self.done}{whole} bytes")

    def pause(self, attempt: int, wait: float) -> None:
        """Before a further attempt, the first being 0: exponential, with jitter, so that many do not come at once."""
        seconds = max(BACKOFF * 2**attempt * random.uniform(0.5, 1.5), wait)
        self.stop.wait(max(0.0, min(seconds, LONGEST_WAIT, self.until - time.monotonic())))
        self.check()
