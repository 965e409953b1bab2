"""The whole of it: files, a real HTTP stream with its page in a browser, signals, options, memory."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.config import EventsConfig, WatchConfig
from pipeline.data.clips import load_clip
from pipeline.data.moments import Moments, streaming
from pipeline.errors import ConfigError, Reason, VideoError
from pipeline.model import checkpoint
from pipeline.signals import noted
from pipeline.stages.watch import run as run_module
from pipeline.stages.watch.engine import TorchSteps
from pipeline.stages.watch.mailbox import Arrival
from pipeline.stages.watch.run import watch
from pipeline.stages.watch.settings import stream_reset
from pipeline.stages.watch.stepper import Reset, Stepper
from pipeline.stages.watch.tracker import Tracker
from pipeline.stages.watch.tune import ALONE, tune_watch
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync").split()  # fmt: skip
WRONG = (
    (["--serve", "nowhere"], "HOST:PORT"),
    (["--behind", "never"], "auto"),
    (["--rat", "5"], "'rate'"),
    (["--webhook", "ftp://x"], "no http"),
    (["--record", "a.gif"], "cannot write"),
    (["--events.off", "0.9"], "at most"),
)
COLOURS = "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
LOW = EventsConfig(on=0.3, off=0.2, min_length=0.0, merge=0.0)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at 10 per second: red, then blue."""
    path = tmp_path_factory.mktemp("watch") / "long.mp4"
    colours = np.repeat(np.array([[200, 50, 40], [40, 60, 200]], np.uint8), 20, axis=0)
    write_video(str(path), np.broadcast_to(colours[:, None, None, :], (40, 48, 64, 3)), 10.0)
    return path


def test_a_file_is_answered_as_its_clip_is_and_every_line_is_json(
    predictor: Any, long_file: Path, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = []
    config = WatchConfig(rate=5.0, reset="never", every=1e-6, record=str(tmp_path / "out.mp4"))
    summary = watch(
        predictor, [str(long_file)], config, LOW, None, lambda line: lines.append(json.loads(json.dumps(line)))
    )
    times = probe(str(long_file)).times
    clip = load_clip(str(long_file), times, streaming(predictor.plan, 5.0))
    answers = [line for line in lines if line["type"] == "answer"]
    assert [line["time"] for line in answers] == np.round(clip.times, 3).tolist()
    for place, line in list(enumerate(answers))[::5]:
        expected = predictor.answer(clip.reordered(np.arange(place + 1)))
        assert line["label"] == predictor.classes[int(expected.argmax())]
        assert line["probability"] == pytest.approx(expected.max(), abs=1e-4)
    assert {"start", "event", "ended", "summary"} <= {line["type"] for line in lines}
    assert lines[-1] == summary and summary["latency_p50_ms"] > 0 and not summary["stopped"]
    assert summary["sources"] == [
        {"source": str(long_file), "status": "ended", "frames": 40, "answers": len(clip.times), "dropped": 0, "gaps": 0,
         "events": sum(line["type"] == "event" for line in lines)},
    ]  # fmt: skip
    assert probe(str(tmp_path / "out.mp4")).times[-1] == pytest.approx(clip.times[-1], abs=0.25)


def test_several_files_at_once_give_the_lines_of_each_alone(predictor: Any, long_file: Path, tiny_clips: Path) -> None:
    files = [str(long_file), str(sorted(tiny_clips.glob("blue/*_c02.*"))[0])]
    config = WatchConfig(rate=5.0, every=1e-6)

    def lines_of(*sources: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        watch(predictor, sources, config, LOW, None, found.append)
        return [line for line in found if line["type"] != "summary"]

    together = lines_of(*files)
    for file in files:
        mine, alone = [line for line in together if line["source"] == file], lines_of(file)
        assert [(line["type"], line.get("label"), line.get("time")) for line in mine] == [
            (line["type"], line.get("label"), line.get("time")) for line in alone
        ]
        for one, other in zip(mine, alone, strict=True):  # which share a batch changes the last bits
            for key in {"probability", "confidence", "peak", "end"} & one.keys():
                assert one[key] == pytest.approx(other[key], abs=2e-4)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg, which serves the stream, is not installed")
@pytest.mark.skipif(not os.path.exists(CHROMIUM), reason="Chromium is not installed")
def test_a_page_shows_an_http_stream_and_its_loss(
    predictor: Any, long_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server process that serves once: the stream ends, which a live source does not, and is sought again in vain."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    address = f"http://127.0.0.1:{free_port()}/"
    command = ["ffmpeg", "-loglevel", "error", "-re", "-stream_loop", "1", "-i", str(long_file), "-g", "5"]
    command += ["-c:v", "mpeg2video", "-r", "25", "-f", "mpegts", "-listen", "1", address]
    served = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    said: list[str] = []
    monkeypatch.setattr(run_module, "say", said.append)
    lines: list[dict[str, Any]] = []
    config = WatchConfig(rate=5.0, give_up=3.0)
    source = f"http://me:secret@{address.removeprefix('http://')}"
    thread = threading.Thread(
        target=watch, args=(predictor, [source], config, LOW, "127.0.0.1:0", lines.append), daemon=True
    )
    try:
        wait_until(lambda: listening(served, address))
        thread.start()
        wait_until(lambda: any(text.startswith("page: ") for text in said))
        url = next(text for text in said if text.startswith("page: ")).removeprefix("page: ")
        with (
            playwright.sync_playwright() as driver,
            driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser,
        ):
            page = browser.new_page()
            wrong: list[str] = []
            page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(url)
            # evaluated from here: the page's own policy forbids what wait_for_function does
            wait_until(lambda: page.evaluate("document.querySelector('.picture').naturalWidth === 64"))
            wait_until(lambda: page.evaluate("sources[0].points.length > 5"))
            assert page.inner_text(".answer .label") in predictor.classes
            assert "forget" in page.inner_text(".of-gates") and "secret" not in page.content()
            assert page.eval_on_selector(".confidence", COLOURS) > 10 and page.eval_on_selector(".gates", COLOURS) > 10
            page.wait_for_selector("#events tbody tr:not(.none)", timeout=30_000)
            page.locator(".status", has_text="lost").wait_for(timeout=30_000)
            assert wrong == []
    finally:
        served.kill()
        served.wait()
    thread.join(20)
    assert lines[-1]["type"] == "summary" and lines[-1]["sources"][0]["status"] == "failed"
    assert any("trying again" in text for text in said) and not any("secret" in text for text in said)
    assert any(line["type"] == "event" and "at" in line for line in lines)


def listening(process: subprocess.Popen[bytes], address: str) -> bool:
    """Whether a port is listened on, found without a connection, which the server would take for its client."""
    assert process.poll() is None
    port = f":{int(address.rsplit(':', 1)[1].strip('/')):04X}"
    return any(line.split()[1].endswith(port) and line.split()[3] == "0A"
               for line in Path("/proc/net/tcp").read_text().splitlines()[1:])  # fmt: skip


def wait_until(reached: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_writes_the_last_events_and_ends_with_143(example: Any, tmp_path: Path) -> None:
    """From standard input, in a process of its own; a stream that goes on is stopped in the middle."""
    command = [sys.executable, "-m", "pipeline", "watch", str(example.folder), "-", "--rate", "5", "--every", "0.1"]
    command += [
        "--events.on",
        "0.3",
        "--events.off",
        "0.0",
        "--events.min_length",
        "0",
        "--record",
        str(tmp_path / "out.mkv"),
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    mkv = tmp_path / "in.mkv"
    write_video(str(mkv), np.full((20, 48, 64, 3), 90, np.uint8), 10.0, "MJPG")
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.buffer.write(mkv.read_bytes())  # and then nothing, without an end
        process.stdin.buffer.flush()
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        said = process.stderr.read() if process.stderr else ""
    assert process.returncode == 143, said
    lines = [json.loads(line) for line in (first + rest).splitlines()]
    assert lines[-1]["type"] == "summary" and lines[-1]["stopped"] is True
    assert any(line["type"] == "event" for line in lines)  # one that went on when the signal came
    assert "from frame to answer" in said and "ended by SIGTERM" in said
    assert probe(str(tmp_path / "out.mkv")).times.size > 0


def test_a_second_ctrl_c_ends_at_once_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noted() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with noted() as stop:
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stop.end()


def test_what_a_user_gets_wrong_is_one_line(
    predictor: Any,
    example: Any,
    long_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(VideoError) as caught:
        watch(predictor, ["no/such.mp4"])
    assert caught.value.reason is Reason.NOT_FOUND and "a SOURCE is" in str(caught.value)
    with pytest.raises(ConfigError, match="did you mean 'blue'"):
        watch(predictor, [str(long_file)], WatchConfig(rate=5.0, ignore=["bleu"]))
    with pytest.raises(ConfigError, match="can be read once"):
        watch(predictor, ["-", "-"])
    monkeypatch.setattr(run_module, "STATUS_SECONDS", 0.05)
    lines: list[dict[str, Any]] = []
    with pytest.raises(VideoError, match="nothing answers"):
        watch(predictor, ["http://127.0.0.1:9/"], WatchConfig(rate=5.0), write=lines.append)
    for arguments, said in WRONG:
        with pytest.raises(SystemExit) as ended:
            main(["watch", str(example.folder), str(long_file), *arguments, "--device", "cpu"])
        assert ended.value.code == 2 and said in capsys.readouterr().err, arguments


def test_a_model_that_reads_both_ways_is_refused(make_config: Any, predictor: Any, long_file: Path) -> None:
    model = checkpoint.build_classifier(make_config(recurrent__bidirectional=True), 3)
    both = type(predictor)(model, predictor.card, predictor.device, "")
    with pytest.raises(ConfigError, match="bidirectional"):
        watch(both, [str(long_file)])


def test_a_checkpoint_knows_its_rate_and_tuning_stores_the_reset(example: Any, tmp_path: Path) -> None:
    folder = tmp_path / "best"
    shutil.copytree(example.folder / "best", folder)
    trained = checkpoint.load(folder)[1].extra["stream"]
    assert trained["length"] == 4 and 2.0 < trained["rate"] < 12.0
    result = tune_watch(folder, out=tmp_path / "out", device="cpu", workers=0)
    card = checkpoint.load(folder)[1]
    kept = card.extra["stream"]
    assert kept["reset"] in ("never", "window", "event") and kept["rate"] == result["rate"] == trained["rate"]
    assert result["clips"] > 0 and result["scores"][ALONE]["passages"] == result["scores"]["never"]["passages"]
    best = max(score["accuracy"] for name, score in result["scores"].items() if name != ALONE)
    assert kept["accuracy"] == best
    assert (tmp_path / "out/delay.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out/tune_watch.json").read_text())["chosen"] == result["chosen"]
    assert tune_watch(folder, device="cpu", workers=0) == result  # a second time the same
    predictor = checkpoint_predictor(folder)
    assert stream_reset(predictor, WatchConfig()) == Reset(kept["reset"], kept["window"] or max(2, kept["length"]))
    assert stream_reset(predictor, WatchConfig(window=9)) == Reset("window", 9)
    old = replace(card, extra={})
    predictor.card = old
    with pytest.raises(ConfigError, match=r"--rate .* tune_watch"):
        watch(predictor, [str(example.folder)])
    with pytest.raises(SystemExit):
        main(["tune_watch", "models:/x@y"])


def checkpoint_predictor(folder: Path) -> Any:
    from pipeline.stages.predict import load_predictor

    return load_predictor(folder, "cpu")


def test_memory_does_not_grow_with_the_stream(predictor: Any) -> None:
    """The short version of scripts/bench_stream.py: objects, not seconds."""
    plan = streaming(predictor.plan, 10.0)
    moments, stepper = Moments(plan), Stepper(TorchSteps(predictor), 1, Reset("window", 4), gates=True)
    tracker = Tracker("s", predictor.classes, LOW, [], 0.0, None)
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)

    def after(start: int, stop: int) -> int:
        for number in range(start, stop):
            for moment in moments.push(frames[number % 8], number / 10):
                tracker.answer(Arrival(moment, moment.time, 0.0), stepper.step({0: moment.inputs})[0])
        gc.collect()
        return len(gc.get_objects())

    first = after(0, 20)
    assert after(20, 70) - first < 30


def test_the_frames_one_by_one_are_those_of_the_reader(long_file: Path) -> None:
    from pipeline.video.live import open_stream

    times = probe(str(long_file)).times
    expected = read_frames(str(long_file), np.arange(len(times)), times).frames
    with open_stream(str(long_file)) as stream:
        found = list(iter(stream.read, None))
    assert [time for _, time in found] == times.tolist()
    np.testing.assert_array_equal(np.stack([frame for frame, _ in found]), expected)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.watch.reader.FIRST_WAIT", 0.2)
