"""Watch: sources in, lines of JSON out, until the sources end or somebody stops it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.config import EventsConfig, WatchConfig
from pipeline.data.clips import Plan
from pipeline.data.moments import Moments, streaming
from pipeline.errors import ConfigError, Reason, VideoError
from pipeline.signals import Stop, noted
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import say
from pipeline.stages.watch.board import Board
from pipeline.stages.watch.engine import steps_of
from pipeline.stages.watch.latency import Latency
from pipeline.stages.watch.mailbox import Arrival
from pipeline.stages.watch.outputs import Webhook, recorders, write_line
from pipeline.stages.watch.reader import Reader
from pipeline.stages.watch.settings import ignored_labels, stream_rate, stream_reset
from pipeline.stages.watch.stepper import Answer, Stepper
from pipeline.stages.watch.summary import milliseconds, source_row, summary_text
from pipeline.stages.watch.tracker import Line, Tracker
from pipeline.video.live import kind_of, shown

TICK, STATUS_SECONDS = 0.1, 0.5


def watch(
    predictor: Predictor,
    sources: Sequence[str],
    config: WatchConfig | None = None,
    events: EventsConfig | None = None,
    serve: str | None = None,
    write: Callable[[Line], None] = write_line,
) -> dict[str, Any]:
    """Answer to streams moment by moment.

    Args:
        predictor: a model that reads forward only.
        sources: camera numbers, addresses, files, `-` for standard input.
        config, events: how; None: the defaults.
        serve: HOST:PORT of the web page; None: there is none.
        write: where lines go, see docs/streams.md.

    Returns:
        The summary, which is also the last line.

    Raises:
        ConfigError: a model that cannot be fed moment by moment, or options that do not fit it.
        VideoError: a file that is not there, or no source gives a frame.
        KeyboardInterrupt: after Ctrl-C (Preempted: SIGTERM), when everything has been written.
    """
    config, events = config or WatchConfig(), events or EventsConfig()
    _check(predictor, sources)
    plan = streaming(predictor.plan, stream_rate(predictor, config.rate))
    with ExitStack() as opened, noted() as stop:
        loop = _Loop(predictor, sources, plan, config, events, serve, write, opened)
        loop.run(stop)
        summary = loop.finish(stop)
    stop.end()
    return summary


class _Loop:
    """What runs in the main thread."""

    def __init__(
        self,
        predictor: Predictor,
        sources: Sequence[str],
        plan: Plan,
        config: WatchConfig,
        events: EventsConfig,
        serve: str | None,
        write: Callable[[Line], None],
        opened: ExitStack,
    ) -> None:
        names = [shown(source) for source in sources]
        self._write, self._classes = write, predictor.classes
        self._webhook = Webhook(config.webhook) if config.webhook else None
        self._recorders = recorders(config.record, plan.video.fps, len(sources)) if config.record else []
        for recorder in self._recorders:
            opened.callback(recorder.close)
        self._board = Board(predictor.card.config.get("name", ""), predictor.classes, names) if serve else None
        self._reset = stream_reset(predictor, config)
        engine = steps_of(predictor)
        warm_up(Stepper(engine, 1, self._reset, serve is not None), plan)
        self._stepper = Stepper(engine, len(sources), self._reset, serve is not None)
        if self._board is not None and serve is not None:
            from pipeline.stages.watch.server import serving  # only who serves loads a web server

            say(f"page: {opened.enter_context(serving(self._board, serve))}")
        self._changed, self._latency = threading.Condition(), Latency()
        self._began, zero = datetime.now(UTC), time.monotonic()
        drop = {"auto": None, "drop": True, "wait": False}[config.behind]
        self._readers = [
            Reader(source, plan, self._changed, drop, config.realtime, config.give_up, zero, say) for source in sources
        ]
        ignored = ignored_labels(predictor, config.ignore)
        self._trackers = [
            Tracker(reader.name, predictor.classes, events, ignored, config.every, self._began if reader.live else None)
            for reader in self._readers
        ]
        self._over: set[int] = set()
        self._zero, self._told = zero, 0.0
        for reader in self._readers:
            reader.start()
            opened.callback(reader.stop)

    def run(self, stop: Stop) -> None:
        """Until all sources are over, or a signal."""
        while stop.number is None and len(self._over) < len(self._readers):
            arrivals = self._gather()
            if arrivals:
                self._answer(arrivals)
            self._end_sources()
            if time.monotonic() - self._told > STATUS_SECONDS:
                self._tell()
                self._check_beginning()

    def finish(self, stop: Stop) -> dict[str, Any]:
        """The last events, and the summary."""
        for reader in self._readers:
            reader.mailbox.close()
        for number in range(len(self._readers)):
            if number not in self._over:
                self._emit(self._trackers[number].flush())
        self._tell()
        if self._webhook is not None:
            self._webhook.close()
        summary = self._summary(stop)
        self._write(summary)
        say(summary_text(summary))
        self._raise_if_nothing()
        return summary

    def _gather(self) -> dict[int, Arrival]:
        """The next moment of each source that has one; waits a little where none has."""
        with self._changed:
            for _ in range(2):
                taken = {number: reader.mailbox.take() for number, reader in enumerate(self._readers)}
                found = {number: arrival for number, arrival in taken.items() if arrival is not None}
                if found:
                    return found
                self._changed.wait(TICK)
        return {}

    def _answer(self, arrivals: Mapping[int, Arrival]) -> None:
        for number, arrival in arrivals.items():
            if arrival.gap is not None:
                self._stepper.restart(number)
        answers = self._stepper.step({number: arrival.moment.inputs for number, arrival in arrivals.items()})
        now = time.monotonic()
        for number, arrival in arrivals.items():
            self._latency.add(now - arrival.arrived)
            tracker = self._trackers[number]
            self._emit(tracker.answer(arrival, answers[number]))
            if tracker.ended and self._reset.policy == "event":
                self._stepper.restart(number)
            self._show(number, arrival, answers[number])

    def _show(self, number: int, arrival: Arrival, answer: Answer) -> None:
        if self._recorders:
            label, share = self._label(answer)
            self._recorders[number].add(arrival.moment.frame, arrival.time, label, share)
        if self._board is not None:
            going = [event.label for event in self._trackers[number].going_on()]
            self._board.answer(number, arrival, answer, going)

    def _label(self, answer: Answer) -> tuple[str, float | None]:
        if not self._classes:
            return f"{float(answer.values[0]):.4g}", None
        best = int(answer.values.argmax())
        return self._classes[best], float(answer.values[best])

    def _emit(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._write(line)
            if line["type"] != "answer" and self._webhook is not None:
                self._webhook.send(line)
            if line["type"] in ("event", "gap") and self._board is not None:
                self._board.event(line)

    def _end_sources(self) -> None:
        """What is over: its last events and why it ended."""
        for number, reader in enumerate(self._readers):
            if number in self._over or not reader.mailbox.finished or len(reader.mailbox):
                continue
            self._over.add(number)
            if reader.bug is not None:
                raise reader.bug
            self._emit(self._trackers[number].flush())
            kind = "ended" if reader.error is None else "failed"
            line: Line = {"type": kind, "source": reader.name}
            if reader.error is not None:
                line |= {"reason": str(reader.error.reason), "detail": reader.error.detail}
                if len(self._readers) > 1:  # else it is the error that the command ends with
                    say(f"given up: {reader.error}")
            self._emit([line])

    def _tell(self) -> None:
        """The page learns how the sources are."""
        self._told = time.monotonic()
        for number, reader in enumerate(self._readers):
            if self._board is not None:
                counts = {"frames": reader.frames, "dropped": reader.mailbox.dropped, "gaps": reader.gaps}
                self._board.status(number, self._status(number), **counts)

    def _status(self, number: int) -> str:
        reader = self._readers[number]
        if number in self._over:
            return "ended" if reader.error is None else "failed"
        return "lost" if reader.failure is not None else "live" if reader.frames else "waiting"

    def _check_beginning(self) -> None:
        """A source that is away at first is waited for, but not when there is no other: that is a wrong name."""
        if all(not reader.frames and (reader.failure or reader.error) for reader in self._readers):
            self._raise_if_nothing()

    def _raise_if_nothing(self) -> None:
        failures = [reader.error or reader.failure for reader in self._readers]
        if not any(reader.frames for reader in self._readers) and failures[0] is not None:
            raise failures[0]

    def _summary(self, stop: Stop) -> dict[str, Any]:
        rows = [
            source_row(reader, tracker, self._status(number))
            for number, (reader, tracker) in enumerate(zip(self._readers, self._trackers, strict=True))
        ]
        summary = {"type": "summary", "seconds": round(time.monotonic() - self._zero, 2), "stopped": bool(stop.number)}
        summary |= {"reset": self._reset.policy, "sources": rows, **milliseconds(self._latency)}
        if self._webhook is not None:
            hook = self._webhook
            summary["webhook"] = {"sent": hook.sent, "failed": hook.failed, "dropped": hook.dropped}
        return summary | {"record": [str(recorder.path) for recorder in self._recorders]}


def warm_up(stepper: Stepper, plan: Plan) -> None:
    """Two moments through everything, so that the first of the stream does not wait for what is made once."""
    moments, black = Moments(plan), np.zeros((64, 64, 3), dtype=np.uint8)
    for number in range(2):
        for moment in moments.push(black, number / plan.video.fps):
            stepper.step({0: moment.inputs})


def _check(predictor: Predictor, sources: Sequence[str]) -> None:
    if not predictor.model.streamable:
        raise ConfigError(
            "the model is bidirectional: it reads clips from both ends, and a stream has one; see classify"
        )
    if sum(source == "-" for source in sources) > 1:
        raise ConfigError("standard input (-) can be read once")
    for source in sources:
        if kind_of(source) == "file" and not os.path.exists(source):
            detail = "a SOURCE is a file, a camera's number, an address such as rtsp://..., or -"
            raise VideoError(source, Reason.NOT_FOUND, detail)
