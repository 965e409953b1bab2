"""Recordings of any length: read once, one frame in memory at a time; probabilities, events and a picture of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import EventsConfig, TimelineConfig, WatchConfig
from pipeline.data.clips import Plan
from pipeline.data.moments import Moments, streaming
from pipeline.errors import ConfigError, DataError, UserError, VideoError
from pipeline.report import event_files
from pipeline.report.events import Event, Events
from pipeline.report.timeline_figure import Overview, timeline_figure
from pipeline.stages.find import find_files
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import bar, say
from pipeline.stages.timeline.answers import Answer, Answering, Encoding, StateAnswers, WindowAnswers
from pipeline.stages.timeline.files import SUFFIXES, ProbabilityTable, names_of, output_files
from pipeline.stages.watch.settings import ignored_labels, stored, stream_rate, stream_reset
from pipeline.video.frames import Frames, open_frames


@dataclass(frozen=True)
class Way:
    """How recordings are answered.

    Attributes:
        mode: state or window.
        plan: of the moments.
        window, stride: moments; of mode window.
    """

    mode: str
    plan: Plan
    window: int = 0
    stride: int = 0

    def shown(self, predictor: Predictor) -> dict[str, Any]:
        """What of it belongs to a result."""
        rate = self.plan.video.fps
        found: dict[str, Any] = {"mode": self.mode, "rate": round(rate, 4)}
        if self.mode == "state":
            reset = stream_reset(predictor, WatchConfig())
            return found | {"reset": reset.policy} | ({"window": reset.window} if reset.policy == "window" else {})
        return found | {"window": round(self.window / rate, 3), "stride": round(self.stride / rate, 3)}


def timeline(
    predictor: Predictor, sources: Sequence[str], out: Path, config: TimelineConfig, events: EventsConfig
) -> dict[str, Any]:
    """Label recordings over time.

    Args:
        predictor: of labels, for clips or for moments.
        sources: files, folders, globs, lists.
        out: folder of the files, see `SUFFIXES`; made where it is not there.
        config: how they are read.
        events: what an event is.

    Returns:
        `rows`, one per file with path, status, name, duration, frames, moments, events, note; `ok` and `failed`
        counted; how the files were read. A file that cannot be read is a row with its reason as status.

    Raises:
        ConfigError: options that do not fit the model.
        UserError: `out` is not a folder.
    """
    way, ignored = way_of(predictor, config), ignored_labels(predictor, config.ignore)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out is a folder")
    out.mkdir(parents=True, exist_ok=True)
    files = _found(sources)
    rows = []
    for number, (file, name) in enumerate(zip(files, names_of(files), strict=True), 1):
        title = f"{name} ({number}/{len(files)})" if len(files) > 1 else name
        recording = Recording(predictor, way, Events(predictor.classes, events, ignored))
        rows.append(recording.write(file, out, name, title))
    ok = sum(row["status"] == "ok" for row in rows)
    settings = way.shown(predictor) | {"model": predictor.digest, "ignored": ignored}
    return {"out": str(out), **settings, "rows": rows, "ok": ok, "failed": len(rows) - ok}


def way_of(predictor: Predictor, config: TimelineConfig) -> Way:
    """How a model answers recordings, from the options and its checkpoint.

    Raises:
        ConfigError: they do not fit each other.
    """
    model = predictor.model
    if model.numeric:
        raise ConfigError("the model answers with numbers, which make no events; watch --every writes them over time")
    mode = config.mode
    if mode == "auto":
        wished = config.window is not None or config.stride is not None
        mode = "state" if model.per_moment and model.streamable and not wished else "window"
    if mode == "state" and not model.streamable:
        raise ConfigError("the model is bidirectional, it cannot carry a state through a recording: use --mode window")
    plan = streaming(predictor.plan, stream_rate(predictor, config.rate))
    if mode == "state":
        return Way(mode, plan)
    rate = plan.video.fps
    usual = int(stored(predictor).get("length") or predictor.plan.video.frames)
    window = usual if config.window is None else max(1, round(config.window * rate))
    stride = max(1, window // 4) if config.stride is None else max(1, round(config.stride * rate))
    if stride > window:
        raise ConfigError(
            f"stride is {config.stride:g} s, the window {window / rate:g} s; a stride above it leaves moments out"
        )
    return Way(mode, plan, window, stride)


class Recording:
    """One recording on its way from frames to files.

    Args:
        predictor: the model.
        way: how it answers.
        events: new.
    """

    def __init__(self, predictor: Predictor, way: Way, events: Events) -> None:
        self._predictor, self._way, self._events = predictor, way, events
        self._overview = Overview(len(predictor.classes))
        self._found: list[Event] = []
        self._going: set[str] = set()
        self._count = 0

    def write(self, path: str, out: Path, name: str, title: str) -> dict[str, Any]:
        """Read a file and write its results.

        Args:
            path: the recording.
            out: an existing folder.
            name: of the results.
            title: for people.

        Returns:
            Its row.
        """
        shown = path.encode("utf-8", "backslashreplace").decode()
        try:
            with open_frames(path, self._predictor.plan.limits.megapixels) as frames:
                before = sum((out / f"{name}{suffix}").exists() for suffix in SUFFIXES)
                with output_files(out, name) as files:
                    with ProbabilityTable(files[".probabilities.parquet"], self._predictor.classes) as table:
                        self._read(frames, title, table)
                    self._write_events(files, shown, frames.time)
                if before:
                    say(f"{out / name}.*: {before} files of an earlier run replaced")
        except VideoError as error:
            say(str(error))
            return {"path": shown, "status": str(error.reason), "note": error.detail}
        return {
            "path": shown,
            "status": "ok",
            "name": name,
            "duration": round(frames.time, 3),
            "frames": frames.count,
            "moments": self._count,
            "events": len(self._found),
            "note": frames.damage,
        }

    def _read(self, frames: Frames, title: str, table: ProbabilityTable) -> None:
        """Every frame, every answer."""
        way, predictor = self._way, self._predictor
        answering: Answering
        if way.mode == "state":
            answering = StateAnswers(predictor, stream_reset(predictor, WatchConfig()))
        else:
            answering = WindowAnswers(predictor, way.window, way.stride)
        with bar(f"{title}, seconds", round(frames.expected) or None) as done:
            for answer in self._answers(frames, answering, done):
                table.add(answer.time, answer.probabilities)
                self._overview.add(answer.time, answer.probabilities)
                self._found += self._events.push(answer.probabilities, answer.time)
                going = {event.label for event in self._events.going_on()}
                if self._going - going:
                    answering.event_ended()
                self._going = going
        self._found = sorted([*self._found, *self._events.flush()], key=lambda event: (event.start, event.label))

    def _answers(self, frames: Frames, answering: Answering, done: Any) -> Iterator[Answer]:
        moments, encoding, shown = Moments(self._way.plan), Encoding(self._predictor), 0
        for frame, time in frames:
            for moment in moments.push(frame, time):
                self._count += 1
                for encoded in encoding.push(moment):
                    yield from answering.push(encoded)
            if int(time) > shown:
                done(int(time) - shown)
                shown = int(time)
        for encoded in encoding.flush():
            yield from answering.push(encoded)
        yield from answering.flush()

    def _write_events(self, files: dict[str, Path], path: str, duration: float) -> None:
        event_files.write_jsonl(self._found, files[".events.jsonl"])
        event_files.write_csv(self._found, files[".events.csv"])
        event_files.write_srt(self._found, files[".srt"])
        event_files.write_vtt(self._found, files[".vtt"])
        timeline_figure(
            self._overview, self._found, self._predictor.classes, duration, Path(path).name, files[".timeline.png"]
        )


def _found(sources: Sequence[str]) -> list[str]:
    """The files, each once; a source that is not there becomes a row like any other that cannot be read."""
    found: dict[str, None] = {}
    for source in sources:
        try:
            found.update(dict.fromkeys(find_files([source])))
        except DataError:
            found[source] = None
    return list(found)
