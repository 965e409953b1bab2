"""Video files from frames, in the formats that OpenCV's wheel can write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

FORMATS = {".mp4": ("mp4v",), ".avi": ("MJPG", "XVID"), ".webm": ("VP80", "VP90"), ".mkv": ("FFV1", "MJPG")}
"""Codecs that can be written, by suffix; the first is the default."""


def write_video(path: str, frames: np.ndarray, fps: float, codec: str | None = None) -> None:
    """Write a video file.

    Args:
        path: its suffix (a key of `FORMATS`) chooses the container.
        frames: uint8 (T, H, W, 3) RGB, T >= 1, even H and W (the codecs store colour at half size).
        fps: frames per second, above 0; 29.97 is kept as it is.
        codec: one of the suffix's codecs in `FORMATS`; None takes the first.

    Raises:
        ValueError: frames, fps, suffix or codec that cannot be written.
        OSError: the file cannot be opened or written.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), not {frames.dtype} {frames.shape}")
    with video_writer(path, frames.shape[2], frames.shape[1], fps, codec) as write:
        for frame in frames:
            write(frame)


@contextmanager
def video_writer(
    path: str, width: int, height: int, fps: float, codec: str | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """A video file to which frames, uint8 (height, width, 3) RGB, are written one by one by what is yielded.

    Args and Raises: as of `write_video`.
    """
    chosen = _codec(path, codec)
    if height % 2 or width % 2 or fps <= 0:
        raise ValueError(f"{path}: {width} x {height} at {fps:g} fps; both sides must be even and fps above 0")
    fourcc = cv2.VideoWriter_fourcc(*chosen)  # type: ignore[attr-defined]
    with _without_stderr():
        writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, fourcc, fps, (width, height))

    def write(frame: np.ndarray) -> None:
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:  # OpenCV would leave it out
            raise ValueError(f"{path}: a frame is {frame.dtype} {frame.shape}, not uint8 {(height, width, 3)}")
        writer.write(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))

    try:
        if not writer.isOpened():
            raise OSError(f"{path} cannot be opened for writing; does its folder exist?")
        yield write
    finally:
        writer.release()
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        raise OSError(f"{path} was not written; is the disk full?")


def check_format(path: str) -> None:
    """Raises ValueError where a file of this name cannot be written."""
    _codec(path, None)


def _codec(path: str, codec: str | None) -> str:
    """The codec to write with; ValueError where there is none."""
    choices = FORMATS.get(os.path.splitext(path)[1].lower(), ())
    if not choices or (codec is not None and codec not in choices):
        allowed = ", ".join(f"{key} with {' or '.join(value)}" for key, value in FORMATS.items())
        raise ValueError(f"cannot write {codec or 'a video'} to {path}; choose {allowed}")
    return codec or choices[0]


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep what C code prints to stderr off the screen.

    OpenCV prints a line "tag is not supported" for every WebM file, whatever the log level, and then writes
    the file correctly; a real failure is seen from `isOpened`.
    """
    try:
        saved = os.dup(2)
    except OSError:  # there is no stderr to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(nowhere)
        os.close(saved)
