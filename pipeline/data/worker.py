"""A decoding process of `data/pool.py`: what it does from its start to its end.

It never loads torch, which albumentations would import if it found it: half a gigabyte and a second per process.
"""

from __future__ import annotations

import contextlib
import ctypes
import pickle
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2

from pipeline.data.wire import decode, encode, receive, send
from pipeline.errors import Reason, VideoError
from pipeline.video import use_one_thread

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Lost:
    """Why an item gave no result: its process ended or had to be ended, or the task raised a VideoError.

    Attributes:
        reason: timed out, out of memory, decoder crashed; or that of the error.
        detail: the limit, or the signal; or that of the error.
    """

    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Bug:
    """An exception that no file should cause; it is raised again where the results are read."""

    error: BaseException


def perform(task: Callable[[Any], Any], item: Any) -> Any:
    """`task(item)`, or `Lost` for what a file can cause: a VideoError, and memory that cannot be had."""
    try:
        return task(item)
    except VideoError as error:
        return Lost(error.reason, error.detail)
    except MemoryError:
        return Lost(Reason.OUT_OF_MEMORY, "it asked for more than there is")
    except cv2.error as error:
        if getattr(error, "code", None) != cv2.Error.StsNoMem:
            raise
        return Lost(Reason.OUT_OF_MEMORY, "it asked for more than there is")


def main(descriptor: int) -> None:
    """Answer requests until the other side is gone.

    A request is (task, items): no item asks only for the task's imports, which no file shall pay for.
    """
    _end_with_parent()
    for stop in (signal.SIGINT, signal.SIGTERM):  # of a terminal or scheduler, to all processes: the parent's business
        signal.signal(stop, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash costs one file, not a core dump for each
    sys.meta_path.insert(0, _WithoutTorch())  # type: ignore[arg-type]
    use_one_thread()
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, ConnectionError):
        while True:
            send(connection, _answer(receive(connection)))


def _answer(request: list[bytearray]) -> list[bytes | memoryview]:
    try:
        task, items = decode(request)
        results = [perform(task, item) for item in items]
        return encode(results[0] if results else None)
    except Exception as error:
        return encode(Bug(_portable(error)))


def _portable(error: Exception) -> BaseException:
    """The exception with its traceback as a note; one that does not survive pickling as a RuntimeError."""
    where = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"in a decoding process:\n{where}")
    return copy  # type: ignore[no-any-return]


def _end_with_parent() -> None:
    """Linux kills this process when the thread that started it ends, however it ends.

    Elsewhere, and if it ended before this call, the closed connection tells.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _WithoutTorch:
    """An import finder for which there is no torch."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torch":
            raise ModuleNotFoundError("decoding processes do without torch", name=name)
