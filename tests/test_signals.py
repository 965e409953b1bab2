"""A stop reaches whoever waits for it, wherever it falls."""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from collections.abc import Iterator

import pytest

from pipeline import cli
from pipeline.cli import files
from pipeline.errors import Preempted
from pipeline.signals import stops

STOPS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Thing:
    """Something to be collected."""


def stop_now(stop: signal.Signals) -> None:
    os.kill(os.getpid(), stop)


def stop_in_a_callback(stop: signal.Signals) -> None:
    """Python reports what a callback of the collector raises, and goes on."""
    thing = Thing()
    watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), stop))
    del thing
    assert watched() is None
    time.sleep(5)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("where", [stop_now, stop_in_a_callback])
def test_a_stop_ends_a_command_with_its_code_and_one_line(
    stop: signal.Signals, where: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ingest(_: list[str]) -> None:
        assert callable(where)
        where(stop)
        pytest.fail("it went on")

    monkeypatch.setattr(files, "ingest_command", ingest)
    hook, started = sys.unraisablehook, time.monotonic()
    with pytest.raises(SystemExit) as ended:
        cli.main(["ingest"])
    assert ended.value.code == 128 + stop and time.monotonic() - started < 4
    said = "ended by SIGTERM" if stop == signal.SIGTERM else "interrupted"
    assert capsys.readouterr().err == f"video-lstm: {said}\n"
    assert sys.unraisablehook is hook


def test_a_second_stop_does_not_interrupt_what_the_first_began() -> None:
    with stops():
        try:
            stop_now(signal.SIGTERM)
        except Preempted:
            stop_now(signal.SIGTERM)


def test_what_else_a_callback_raises_is_still_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(_: object) -> None:
        raise ValueError("wrong")

    with stops():
        thing = Thing()
        watched = weakref.ref(thing, wrong)
        del thing
    assert watched() is None and "ValueError: wrong" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
