"""Recordings labelled over time: right places, equal ways, bounded memory, files that are whole or absent."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.cli import main
from pipeline.config import Config, EventsConfig, TimelineConfig, to_dict
from pipeline.data.clips import load_clip
from pipeline.data.moments import streaming
from pipeline.errors import ConfigError, Reason, UserError
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.predict import Predictor
from pipeline.stages.timeline import run as run_module
from pipeline.stages.timeline.answers import Encoded, StateAnswers, WindowAnswers
from pipeline.stages.timeline.files import SUFFIXES, names_of
from pipeline.stages.timeline.run import timeline, way_of
from pipeline.stages.watch.stepper import Reset
from pipeline.video.frames import open_frames
from pipeline.video.reader import probe
from pipeline.video.writer import write_video

RATE = 10.0
LOOSE = EventsConfig(0.6, 0.4, 0.0, 0.0)


def build(config: Config, seed: int = 3, temperature: float = 1.0) -> Predictor:
    """Random weights, large enough for answers that differ from moment to moment."""
    torch.manual_seed(seed)
    model = build_classifier(config, 3).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.2)
    predictor = Predictor(model, Card(to_dict(config), ["a", "b", "c"]), torch.device("cpu"), "digest")
    predictor.temperature = temperature
    return predictor


class Colours:
    """An engine that knows: each moment's features are its mean colour, the answer is the channel that is highest.

    Of a clip it answers with the mean over its moments.
    """

    name, images, parallel = "colours", 4, 1

    def __init__(self, per_moment: bool) -> None:
        self._per_moment = per_moment

    def encode(self, frames: Any) -> dict[str, Any]:
        return {name: x.mean(axis=(2, 3), dtype=np.float32) for name, x in frames.items()}

    def head(self, features: Any) -> list[Any]:
        logits = [np.where(x == x.max(axis=1, keepdims=True), 6.0, 0.0).astype(np.float32)
                  for clip in features for x in clip.values()]  # fmt: skip
        return logits if self._per_moment else [x.mean(axis=0) for x in logits]

    def clips(self, length: int) -> int:
        return 1


@pytest.fixture
def colours(make_config: Callable[..., Config]) -> Callable[[str], Predictor]:
    def make(task: str) -> Predictor:
        predictor = build(make_config(task=task, video__sampling="rate", video__fps=RATE, video__frames=8))
        predictor.card = replace(predictor.card, classes=["red", "green", "blue"])
        predictor.engine = Colours(predictor.model.per_moment)
        return predictor

    return make


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds at 25 per second: red until 2.4 s, then blue."""
    path = tmp_path_factory.mktemp("timeline") / "phases.mp4"
    shades = np.array([[220, 30, 30]] * 60 + [[30, 30, 220]] * 90, np.uint8)
    write_video(str(path), np.broadcast_to(shades[:, None, None], (150, 32, 48, 3)), 25.0)
    return path


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("task", ["label", "frame_label"])
def test_two_phases_are_two_events_within_a_moment_of_the_truth(
    task: str, colours: Callable[[str], Predictor], phases: Path, tmp_path: Path
) -> None:
    config = TimelineConfig(mode="window", window=0.8, stride=0.1)
    result = timeline(colours(task), [str(phases)], tmp_path, config, EventsConfig())
    events = read_events(tmp_path / "phases.events.jsonl")
    assert [event["label"] for event in events] == ["red", "blue"]
    assert events[0]["start"] == 0 and events[1]["end"] == pytest.approx(5.96, abs=1 / RATE)
    for found in (events[0]["end"], events[1]["start"]):
        assert found == pytest.approx(2.4, abs=1 / RATE)
    assert min(event["confidence"] for event in events) > 0.9
    table = pq.read_table(tmp_path / "phases.probabilities.parquet")
    assert table.column_names == ["time", "red", "green", "blue"]
    times = table["time"].to_numpy()
    assert (np.diff(times) > 0).all() and times[0] == 0 and times[-1] == pytest.approx(5.96, abs=1 / RATE)
    np.testing.assert_allclose(sum(table[name].to_numpy() for name in ("red", "green", "blue")), 1, atol=1e-5)
    with (tmp_path / "phases.events.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["red", "blue"]
    for suffix, clock in ((".srt", "00:00:00,000 --> 00:00:02,"), (".vtt", "00:00:00.000 --> 00:00:02.")):
        assert clock in (tmp_path / f"phases{suffix}").read_text()
    row = result["rows"][0]
    assert (row["status"], row["frames"], row["moments"], row["events"], row["note"]) == ("ok", 150, 60, 2, "")
    assert {path.name for path in tmp_path.iterdir()} == {f"phases{suffix}" for suffix in SUFFIXES}


def test_one_window_over_all_equals_the_state_and_classification(
    make_config: Callable[..., Config], phases: Path, tmp_path: Path
) -> None:
    """Also of a calibrated model, whose temperature both ways must know."""
    config = make_config(task="frame_label", video__sampling="rate", video__fps=RATE)
    predictor = build(config, temperature=2.5)
    tables = {}
    for mode, options in (("state", {}), ("window", {"window": 6.0, "stride": 2.0})):
        given = TimelineConfig(mode=mode, **options)  # type: ignore[arg-type]
        timeline(predictor, [str(phases)], tmp_path / mode, given, LOOSE)
        tables[mode] = pq.read_table(tmp_path / mode / "phases.probabilities.parquet").to_pandas().to_numpy()
    clip = load_clip(str(phases), probe(str(phases)).times, streaming(predictor.plan))
    expected = predictor.answer(clip)
    for table in tables.values():
        np.testing.assert_allclose(table[:, 0], clip.times - clip.times[0], atol=1e-9)
        np.testing.assert_allclose(table[:, 1:], expected, atol=1e-5)


def features(count: int, width: int) -> list[Encoded]:
    rng = np.random.default_rng(5)
    return [Encoded(place / RATE, {"rgb": rng.standard_normal(width).astype(np.float32)}) for place in range(count)]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("count", [1, 5, 8, 13])
def test_windows_answer_as_the_clips_that_they_are(
    bidirectional: bool, count: int, make_config: Callable[..., Config]
) -> None:
    """Every moment once, from the window that it is in the middle of; the ends from the first and the last one."""
    for task in ("label", "frame_label"):
        predictor = build(make_config(task=task, recurrent__bidirectional=bidirectional))
        moments = features(count, next(iter(predictor.model.encoders.values())).dim)
        answering = WindowAnswers(predictor, 8, 3)
        found = [answer for moment in moments for answer in answering.push(moment)] + answering.flush()
        stacked = np.stack([moment.features["rgb"] for moment in moments])

        def of(begin: int, predictor: Predictor = predictor, stacked: Any = stacked) -> np.ndarray:
            return predictor.from_features({"rgb": stacked[begin : begin + 8]})

        begins = sorted({*range(0, max(1, count - 7), 3), max(0, count - 8)})
        if task == "label":
            length = min(8, count)
            middles = [(begin + (length - 1) / 2) / RATE for begin in begins]
            times = np.unique([0.0, *middles, (count - 1) / RATE])
            assert [answer.time for answer in found] == pytest.approx(list(times))
            np.testing.assert_array_equal(found[0].probabilities, of(begins[0]))
            np.testing.assert_array_equal(found[-1].probabilities, of(begins[-1]))
        else:
            assert [answer.time for answer in found] == [moment.time for moment in moments]
            for place, answer in enumerate(found):
                fitting = [begin for begin in begins if begin <= place < begin + 8]
                assert any(np.array_equal(answer.probabilities, of(begin)[place - begin]) for begin in fitting)
            if count == 13:
                np.testing.assert_array_equal(found[4].probabilities, of(0)[4])
                np.testing.assert_array_equal(found[6].probabilities, of(3)[3])


def test_the_state_of_a_whole_clip_is_the_answer_of_its_window(make_config: Callable[..., Config]) -> None:
    predictor = build(make_config(), temperature=0.5)
    moments = features(8, next(iter(predictor.model.encoders.values())).dim)
    state, window = StateAnswers(predictor, Reset()), WindowAnswers(predictor, 8, 2)
    carried = [answer for moment in moments for answer in state.push(moment)][-1]
    seen = [answer for moment in moments for answer in window.push(moment)][-1]
    np.testing.assert_allclose(carried.probabilities, seen.probabilities, atol=1e-5)


class Endless:
    """A source of so many frames that are not kept."""

    codec, marks, seekable, repaired, rate = "test", (), False, 0, 25.0

    def __init__(self, frames: int) -> None:
        self.claimed, self._place = frames, 0
        self._pictures = [np.full((8, 8, 3), shade, np.uint8) for shade in ((0, 0, 250), (250, 0, 0))]

    @property
    def time(self) -> float:
        return self._place / self.rate

    def picture(self) -> np.ndarray:
        return self._pictures[self._place // 2500 % 2]

    def advance(self) -> bool:
        self._place += 1
        return self._place < self.claimed

    def goes_on(self) -> bool:
        return False


def test_memory_does_not_grow_with_the_length_of_a_recording(
    colours: Callable[[str], Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each length is measured twice: another test's thread may still be at work, and what it takes is seen here."""
    peaks = []
    for frames in (2500, 2500, 20_000, 20_000):

        @contextmanager
        def opened(_: str, __: float, frames: int = frames) -> Iterator[tuple[Endless, str]]:
            yield Endless(frames), ""

        monkeypatch.setattr("pipeline.video.frames.open_source", opened)
        monkeypatch.setattr(run_module, "timeline_figure", lambda *given: given[-1].write_bytes(b""))
        predictor = colours("label")
        predictor.plan = replace(predictor.plan, video=replace(predictor.plan.video, size=8, fps=1.0))
        config = TimelineConfig(mode="window", window=8.0, stride=4.0)
        tracemalloc.start()
        row = timeline(predictor, ["endless"], tmp_path, config, EventsConfig())["rows"][0]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert row["frames"] == frames and row["events"] == frames // 2500
    assert min(peaks[2:]) < min(peaks[:2]) + 1_000_000, peaks


def test_a_bad_file_is_a_row_and_the_others_go_on(
    colours: Callable[[str], Predictor], phases: Path, tmp_path: Path
) -> None:
    bad, cut, empty = tmp_path / "bad.mp4", tmp_path / "cut.avi", tmp_path / "empty"
    bad.write_bytes(b"no video " * 100)
    write_video(str(cut), np.full((40, 32, 48, 3), 90, np.uint8), RATE)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    empty.mkdir()
    sources = [str(bad), str(tmp_path / "nowhere.mp4"), str(empty), str(cut), str(phases)]
    result = timeline(colours("label"), sources, tmp_path / "out", TimelineConfig(), EventsConfig())
    statuses = [row["status"] for row in result["rows"]]
    assert statuses[:2] == [Reason.NOT_A_VIDEO, Reason.NOT_FOUND] and statuses[3:] == ["ok", "ok"]
    assert statuses[2] != "ok" and (result["ok"], result["failed"]) == (2, 3)
    assert "frames decoded" in result["rows"][3]["note"]
    assert {path.name.split(".")[0] for path in (tmp_path / "out").iterdir()} == {"cut", "phases"}
    json.dumps(result, allow_nan=False)


def test_an_interruption_leaves_what_was_there(
    colours: Callable[[str], Predictor], phases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeline(colours("label"), [str(phases)], tmp_path, TimelineConfig(), EventsConfig())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said: list[str] = []
    monkeypatch.setattr(run_module, "say", said.append)
    timeline(colours("label"), [str(phases)], tmp_path, TimelineConfig(), EventsConfig())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before  # the same numbers, the same files
    assert "replaced" in said[0]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "timeline_figure", stop)
    with pytest.raises(KeyboardInterrupt):
        timeline(colours("label"), [str(phases)], tmp_path, TimelineConfig(ignore=["red"]), EventsConfig())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_background_and_ignored_labels_make_no_events(
    colours: Callable[[str], Predictor], phases: Path, tmp_path: Path
) -> None:
    predictor = colours("frame_label")
    given = dict(predictor.card.config)
    given["data"] = {**given["data"], "background": "red"}
    predictor.card = replace(predictor.card, config=given)
    result = timeline(predictor, [str(phases)], tmp_path, TimelineConfig(mode="window", ignore=["green"]), LOOSE)
    assert {event["label"] for event in read_events(tmp_path / "phases.events.jsonl")} == {"blue"}
    assert result["ignored"] == ["green", "red"]


def test_files_of_one_name_do_not_overwrite_each_other() -> None:
    assert names_of(["a/x.mp4", "b/X.avi", "x-2.mp4", "y"]) == ["x", "X-2", "x-2-2", "y"]


def test_the_way_follows_from_the_model(make_config: Callable[..., Config]) -> None:
    both = build(make_config(task="frame_label", recurrent__bidirectional=True))
    forward, whole = build(make_config(task="frame_label")), build(make_config())
    rate = TimelineConfig(rate=8.0)
    assert [way_of(model, rate).mode for model in (both, forward, whole)] == ["window", "state", "window"]
    way = way_of(whole, TimelineConfig(rate=8.0, window=2.0))
    assert (way.window, way.stride) == (16, 4)
    assert way_of(forward, TimelineConfig(rate=8.0, stride=0.25)).mode == "window"
    for model, config, text in (
        (both, TimelineConfig(mode="state", rate=8.0), "--mode window"),
        (build(make_config(task="regression")), rate, "numbers"),
        (whole, TimelineConfig(), "--rate"),
        (whole, TimelineConfig(rate=8.0, stride=100.0), "leaves moments out"),
    ):
        with pytest.raises(ConfigError, match=text):
            way_of(model, config)


def test_a_frame_that_does_not_convert_is_noted(tmp_path: Path) -> None:
    for number in range(3):
        write_video(str(tmp_path / f"{number}.avi"), np.zeros((2, 16, 16, 3), np.uint8), RATE)
    with open_frames(str(tmp_path / "0.avi")) as frames:
        frames._source.picture = lambda: None  # type: ignore[method-assign]
        assert list(frames) == [] and "0 frames decoded" in frames.damage


WRONG = (
    (["--mode", "both"], "auto, state, window"),
    (["--windo", "2"], "did you mean 'window'"),
    (["--off", "0.9"], "at most"),
    (["--on", "2"], "0 to 1"),
    (["--mode", "state", "--window", "2"], "mode is state"),
    (["--window", "1", "--stride", "2"], "leaves moments out"),
    (["--ignore", "purple", "--rate", "8"], "no label 'purple'"),
)


@pytest.mark.parametrize(("options", "text"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_wrong_options_are_one_line(
    options: list[str], text: str, example: Any, phases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["timeline", str(example.folder), str(phases), "--out", str(tmp_path / "out"), *options])
    said = capsys.readouterr().err
    assert stop.value.code == UserError.exit_code and text in said and said.count("\n") == 1, said


def test_the_command_prints_rows_and_fails_where_nothing_was_read(
    example: Any, phases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["timeline", str(example.folder), str(phases), "--out", str(tmp_path / "out"), "--device", "cpu"]
    main([*given, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["mode"] == "window" and result["ok"] == 1 and result["window"] > 0
    assert len(os.listdir(tmp_path / "out")) == len(SUFFIXES)
    with pytest.raises(SystemExit) as stop:
        main(["timeline", str(example.folder), str(tmp_path / "no.mp4"), "--out", str(tmp_path / "out2")])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "not found" in said.out and "no file could be read" in said.err
