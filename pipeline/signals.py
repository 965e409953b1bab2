"""Ctrl-C and a scheduler's stop: exceptions in the main thread, at once, that nothing swallows."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import Preempted

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_SECONDS = 0.05
"""Time after which a stop that was swallowed is raised again."""


@contextmanager
def stops() -> Iterator[None]:
    """Within it SIGTERM raises Preempted, and a KeyboardInterrupt of either kind reaches whoever waits for it.

    A signal's exception is raised between any two operations. Where those belong to a callback of the garbage
    collector, Python reports the exception and goes on as if nothing had happened: such a one is raised again.
    """
    hook, handler = sys.unraisablehook, signal.signal(signal.SIGTERM, _preempt)
    sys.unraisablehook = _again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if signal.getsignal(signal.SIGTERM) is _preempt:
            signal.signal(signal.SIGTERM, handler)


@dataclass
class Stop:
    """Whether this process was asked to end, and by which signal."""

    number: int | None = None

    def end(self) -> None:
        """Raise what the signal would have raised; nothing where there was none."""
        if self.number is not None:
            raise Preempted if self.number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def noted() -> Iterator[Stop]:
    """Within it Ctrl-C and SIGTERM are only noted, for a loop that looks and ends by itself, with nothing half done.

    A second Ctrl-C raises at once. In another thread than the main one signals stay what they are.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _: object) -> None:
        if stop.number == number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.number = number

    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _preempt(*_: object) -> None:
    """Often a stop is sent more than once: what the first began, such as a save, is not interrupted by the next."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Preempted


def _again(ignored: UnraisableHookArgs) -> None:
    """What Python calls with an exception that it ignores."""
    if not isinstance(ignored.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    number = signal.SIGINT
    if isinstance(ignored.exc_value, Preempted):
        number = signal.SIGTERM
        signal.signal(number, _preempt)
    # not at once: this is still the callback
    timer = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, [threading.main_thread().ident, number])
    timer.daemon = True
    timer.start()
