"""Explain: files in, folders out; the page and the video in a browser; every task, stream and direction."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cli import main
from pipeline.config import Config, DifferenceConfig, EncoderConfig, FlowConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.errors import ConfigError, DataError
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.explain import COLUMNS, asked, explain, folder_names
from pipeline.stages.explain_clip import Question, explain_clip
from pipeline.stages.predict import Predictor
from pipeline.video.reader import probe

FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
FILES = {
    "video.webm",
    "picture.png",
    "page.html",
    "explanation.json",
    "moments.parquet",
    "units.parquet",
    "places.parquet",
}


@pytest.fixture(scope="module")
def clip(tiny_clips: Path) -> Path:
    return max(tiny_clips.rglob("*.avi"), key=lambda path: probe(str(path)).frames)


@pytest.fixture(scope="module")
def written(predictor: Predictor, clip: Path, tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file and one that is no video."""
    out = tmp_path_factory.mktemp("explained")
    bad = next(tiny_clips.rglob("*c09.mp4"))
    result = explain(predictor, [str(clip), str(bad)], out, workers=0)
    assert (result.ok, result.failed) == (1, 1) and result.rows[1]["status"] == "not a video"
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


def predictor_of(task: str = "label", streams: str = "rgb", **recurrent: Any) -> Predictor:
    """A model with random weights."""
    torch.manual_seed(0)
    config = Config(
        task=task,  # type: ignore[arg-type]
        video=VideoConfig(streams=streams, frames=4, size=32),  # type: ignore[arg-type]
        flow=FlowConfig(grid=3, size=32),
        difference=DifferenceConfig(grid=2, size=32),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False, grid=2),
        recurrent=RecurrentConfig(**({"hidden": 6, "layers": 1} | recurrent)),
    )
    classes = [] if config.numeric else ["a", "b", "c"]
    model = build_classifier(config, len(classes))
    return Predictor(model, Card(config=to_dict(config), classes=classes), torch.device("cpu"), "0" * 64)


def test_each_file_has_a_row_and_each_good_one_a_folder(written: Path, clip: Path, predictor: Predictor) -> None:
    table = pd.read_csv(written / "explanations.csv")
    assert list(table.columns) == list(COLUMNS) and list(table["status"]) == ["ok", "not a video"]
    folder = written / clip.stem
    assert {path.name for path in folder.iterdir()} == FILES
    assert not [path for path in written.iterdir() if path.name.startswith(".")]
    moments = pd.read_parquet(folder / "moments.parquet")
    (prediction,) = predictor.predict([str(clip)])
    assert prediction.probabilities is not None
    last = moments[[f"p_{name}" for name in predictor.classes]].iloc[-1].to_numpy()
    np.testing.assert_allclose(last, prediction.probabilities, atol=1e-5)
    told = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    best = int(np.argmax(last))
    assert told["answer"] == f"{predictor.classes[best]} {last[best]:.2f}" == table["answer"][0]
    assert told["score"] == pytest.approx(math.log(last[best] / (1 - last[best])), rel=1e-3)
    units = pd.read_parquet(folder / "units.parquet")
    assert len(units) == len(moments) * 8
    rebuilt = units["forget"] * units["state_before"] + units["input"] * units["cell"]
    np.testing.assert_allclose(units["state"], rebuilt, atol=1e-6)
    info = probe(str(folder / "video.webm"))
    assert (info.width, info.height, info.damage) == (1280, 720, "")
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_gives_the_same_numbers(
    written: Path, clip: Path, predictor: Predictor, tmp_path: Path
) -> None:
    explain(predictor, clip, tmp_path, parts=["numbers"], workers=0)
    for name in ("moments.parquet", "units.parquet", "places.parquet"):
        one, other = (pd.read_parquet(root / clip.stem / name) for root in (written, tmp_path))
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("task", "streams", "recurrent", "label", "moment", "explained"),
    [
        ("frame_label", "rgb", {}, None, None, r"log-odds of [abc], 0.00 to \d"),
        ("frame_label", "rgb", {"kind": "gru"}, "b", 0.3, r"log-odds of b at 0.\d\d s"),
        ("regression", "difference", {"kind": "min_lstm"}, None, None, "the number"),
        ("frame_regression", "flow", {"kind": "rnn"}, None, 0.0, r"the number at 0.\d\d s"),
        ("label", "rgb+flow", {"bidirectional": True, "pooling": "attention"}, "c", None, "log-odds of c"),
        ("label", "flow", {"kind": "none", "pooling": "max"}, None, None, "log-odds of [abc]"),
    ],
)
def test_every_task_stream_and_direction(
    task: str,
    streams: str,
    recurrent: dict[str, Any],
    label: str,
    moment: float,
    explained: str,
    clip: Path,
    tmp_path: Path,
) -> None:
    predictor = predictor_of(task, streams, **recurrent)
    parts = [
        "page",
        "numbers",
        *(["picture"] if recurrent.get("bidirectional") or recurrent.get("kind") == "none" else []),
    ]
    result = explain(predictor, clip, tmp_path, label, moment, parts=parts, workers=0)
    assert result.ok == 1 and re.match(explained, result.rows[0]["explained"]), result.rows[0]["explained"]
    told = json.loads((tmp_path / clip.stem / "explanation.json").read_text(encoding="utf-8"))
    both = 2 if recurrent.get("bidirectional") else 1
    assert len(told["layers"]) == (0 if recurrent.get("kind") == "none" else both * len(streams.split("+")))
    assert [stream["name"] for stream in told["streams"]] == streams.split("+")
    page = (tmp_path / clip.stem / "page.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page


def test_a_still_image_is_explained(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "still.png"), np.full((32, 48, 3), (40, 50, 200), dtype=np.uint8))
    result = explain(predictor, tmp_path / "still.png", tmp_path / "out", workers=0)
    assert {path.name for path in (tmp_path / "out" / "still").iterdir()} == FILES and result.ok == 1


def test_wrong_questions_are_errors_of_one_line(predictor: Predictor, tiny_clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'green'"):
        asked(predictor, "gren")
    with pytest.raises(ConfigError, match="its classes are blue, green, red"):
        asked(predictor, "zzz")
    with pytest.raises(ConfigError, match="--moment is for tasks"):
        asked(predictor, None, 1.0)
    with pytest.raises(ConfigError, match="--label is for models of classes"):
        asked(predictor_of("regression"), "a")
    with pytest.raises(DataError, match="none of the 1 files"):
        explain(predictor, next(tiny_clips.rglob("*c09.mp4")), tmp_path, workers=0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be made"):
        explain(predictor, next(tiny_clips.rglob("*.avi")), tmp_path / "file" / "out", workers=0)


def test_files_of_one_name_do_not_share_a_folder() -> None:
    named = folder_names(["a/clip.mp4", "b/clip.avi", "c/CLIP.mp4", "d/.mp4", "e"])
    assert named == {"a/clip.mp4": "clip", "b/clip.avi": "clip-2", "c/CLIP.mp4": "CLIP-3", "d/.mp4": "mp4", "e": "e"}


def test_the_command_prints_json(example: Any, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", str(example.folder), str(clip), "--out", str(tmp_path), "--parts", "numbers", "--workers", "0",
          "--label", "red", "--json"])  # fmt: skip
    value = json.loads(capsys.readouterr().out)
    assert (value["ok"], value["failed"], value["rows"][0]["explained"]) == (1, 0, "log-odds of red")


def test_a_class_is_explained_against_the_others(clip: Path) -> None:
    """The scores of two classes of two are each other's negative, and so is everything that explains them."""
    from pipeline.data.shown import load_shown

    predictor = predictor_of()
    predictor.model.branches["rgb"].output = torch.nn.Linear(6, 2)
    predictor.card.classes[:] = ["a", "b"]
    shown = load_shown(predictor.plan, str(clip))
    one, other = (explain_clip(predictor, shown, Question(label)) for label in (0, 1))
    np.testing.assert_allclose(one.occlusion, -other.occlusion, atol=1e-5)
    np.testing.assert_allclose(one.streams[0].heat, -other.streams[0].heat, atol=1e-5)


NUMBER = re.compile(r"[−-]?\d+\.\d+")


def terms(page: Any, row: int) -> tuple[dict[str, float], float]:
    """The numbers that one line of equations shows, by name, and its result."""

    def number(text: str) -> float:
        return float(NUMBER.search(text)[0].replace("−", "-"))  # type: ignore[index]

    line = page.locator("#equations tr").nth(row)
    shown = {span.get_attribute("data-key"): number(span.inner_text()) for span in line.locator(".term").all()}
    return shown, number(line.locator(".result").inner_text())


def test_the_page_in_a_browser_moves_through_time_and_its_equations_add_up(
    written: Path, clip: Path, browser: Any
) -> None:
    context = browser.new_context(offline=True, color_scheme="dark")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((written / clip.stem / "page.html").as_uri())
    slider = page.locator("#time")
    slider.focus()
    page.keyboard.press("Home")
    seen = []
    for _ in range(4):
        seen.append(page.locator("#equations").inner_text())
        (c, state), (h, hidden) = terms(page, 4), terms(page, 5)
        assert c["forget"] * c["state_before"] + c["input"] * c["cell"] == pytest.approx(state, abs=3e-4)
        assert h["output"] * math.tanh(h["state"]) == pytest.approx(hidden, abs=3e-4) and h["state"] == state
        f, forget = terms(page, 0)
        assert 1 / (1 + math.exp(-sum(f.values()))) == pytest.approx(forget, abs=3e-4) and c["forget"] == forget
        drawn = page.locator("#circuit .value[data-key=state]").text_content()
        assert float(drawn.replace("−", "-")) == state
        page.keyboard.press("ArrowRight")
    assert len(set(seen)) == 4 and "moment 4 of 4" in page.locator("#clock").inner_text()
    exact = page.evaluate("""() => Math.max(...data.layers.flatMap((layer, n) => data.times.flatMap((_, t) =>
        [...Array(layer.units).keys()].map(u => { const v = name => value(n, name, t, u);
            return Math.max(Math.abs(v("forget") * v("state_before") + v("input") * v("cell") - v("state")),
                            Math.abs(v("output") * Math.tanh(v("state")) - v("hidden"))); }))))""")
    assert exact < 1e-6
    before = page.locator("#equations").inner_text()
    page.locator("#unit").fill(str((page.evaluate("state.unit") + 1) % 8))
    assert page.locator("#equations").inner_text() != before
    page.evaluate("go(data.heated.findIndex((picture, n) => picture !== data.plain[n]))")  # a moment with heat
    source = page.locator("#frame").get_attribute("src")
    page.locator("#heat").uncheck()
    assert page.locator("#frame").get_attribute("src") != source
    assert errors == []
    context.close()


def test_the_video_plays_in_a_browser(written: Path, clip: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((written / clip.stem / "page.html").as_uri())  # of the same origin
    played = page.evaluate(
        """address => new Promise(done => { const video = document.createElement("video"); video.muted = true;
        video.onerror = () => done([0, 0, 0]);
        video.onseeked = () => done([video.videoWidth, video.duration, video.currentTime]);
        video.onloadeddata = () => { video.currentTime = 1; }; video.src = address; document.body.append(video); })""",
        (written / clip.stem / "video.webm").as_uri(),
    )
    assert played[0] == 1280 and played[1] > 2 and played[2] == 1
    page.close()
