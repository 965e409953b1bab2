"""What a status of HTTP means for a file; of the fetching here and of the model server's."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from time import time

from pipeline.addresses import shown
from pipeline.data.remote.part import Interrupted
from pipeline.errors import Reason, VideoError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


def check_status(address: str, status: int, retry_after: str = "") -> None:
    """Pass 200 and nothing else.

    Raises:
        Interrupted: it may succeed later.
        VideoError: it will not.
    """
    if status == 200:
        return
    if status in PASSING:
        raise Interrupted(Reason.NOT_READABLE, f"HTTP status {status}", _seconds(retry_after))
    raise refused(address, status)


def refused(address: str, status: int) -> VideoError:
    """The error of a status that is not 200."""
    if status in (404, 410):
        return VideoError(shown(address), Reason.NOT_FOUND)
    return VideoError(shown(address), Reason.NOT_READABLE, f"HTTP status {status}")


def _seconds(text: str) -> float:
    """Of a header Retry-After: a number of seconds, or a date."""
    try:
        return float(text) if text.isdecimal() else max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError):
        return 0.0
