"""Frames as they come: from a camera, an address, standard input, or a file."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np

from pipeline.errors import Reason, VideoError
from pipeline.video.sources import Source, open_source
from pipeline.video.times import Clock

Kind = Literal["camera", "address", "input", "file"]

OPEN_SECONDS, READ_SECONDS = 15.0, 10.0
"""A source that does not open, or gives no frame, for so long is lost."""


class Stream(Protocol):
    """An opened source.

    Attributes:
        finite: it ends by itself, and an end is no loss.
    """

    finite: bool

    def read(self) -> tuple[np.ndarray, float] | None:
        """The next frame, uint8 (H, W, 3) RGB, newly made, and its time in seconds, later than the one before.

        None at the end, and where the source is lost.
        """


def kind_of(source: str) -> Kind:
    """What a source is: `-` is standard input, a number a camera, `scheme://...` an address; the rest are files."""
    if source == "-":
        return "input"
    if re.fullmatch(r"\d{1,3}", source) and not os.path.exists(source):
        return "camera"
    return "address" if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) else "file"


def shown(source: str) -> str:
    """A source's name without the user and password that an address may have."""
    if kind_of(source) != "address":
        return {"-": "standard input"}.get(source, source)
    parts = urlsplit(source)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def open_stream(source: str) -> Iterator[Stream]:
    """Open a source; it is released at the end.

    Raises:
        VideoError: it does not open, or gives no frame.
    """
    kind = kind_of(source)
    if kind == "file":
        with open_source(source) as (opened, _):
            yield _File(opened)
        return
    name = shown(source)
    if kind == "input" and sys.stdin is not None and sys.stdin.isatty():
        raise VideoError(name, Reason.NOT_READABLE, "it is a terminal; pipe a video into it")
    capture = _capture(source, kind)
    try:
        if not capture.isOpened():
            raise VideoError(name, Reason.NOT_READABLE, _closed(kind))
        yield _Capture(capture, kind)
    finally:
        capture.release()


def _capture(source: str, kind: Kind) -> cv2.VideoCapture:
    if kind == "camera":
        return cv2.VideoCapture(int(source))
    # several decoding threads would each hold a frame back
    options = [cv2.CAP_PROP_N_THREADS, 1]
    if kind == "address":
        options += [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_SECONDS * 1000)]
        options += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(READ_SECONDS * 1000)]
    return cv2.VideoCapture("pipe:0" if kind == "input" else source, cv2.CAP_FFMPEG, options)


def _closed(kind: Kind) -> str:
    """Why a source may not open; OpenCV does not say."""
    return {
        "camera": "no such camera, or another program uses it",
        "address": "nothing answers there, or what answers is no video",
    }.get(kind, "it holds no video that can be read without seeking; MPEG-TS and Matroska can")


class _File:
    """A file, with the frames and times that `read_frames` gives."""

    finite = True

    def __init__(self, source: Source) -> None:
        self._source, self._begun = source, False

    def read(self) -> tuple[np.ndarray, float] | None:
        """See `Stream`."""
        if self._begun and not self._source.advance():
            return None
        self._begun = True
        picture = self._source.picture()
        return None if picture is None else (cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), self._source.time)


class _Capture:
    """What OpenCV reads from outside: a camera's frames have the times of their arrival, others those of the stream."""

    def __init__(self, capture: cv2.VideoCapture, kind: Kind) -> None:
        self._capture, self._camera = capture, kind == "camera"
        self._clock = Clock(capture.get(cv2.CAP_PROP_FPS))
        # a file behind an address has a length, a broadcast has none
        self.finite = kind == "input" or (kind == "address" and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0)

    def read(self) -> tuple[np.ndarray, float] | None:
        """See `Stream`."""
        if not self._capture.grab():
            return None
        at = time.monotonic() if self._camera else float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        at = self._clock.tick(at)
        ok, frame = self._capture.retrieve()
        if not ok or frame is None or not frame.size:
            return None
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), at
