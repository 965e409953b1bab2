"""The real page in a real browser: what a person sees of a run."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pipeline.config import TrackingConfig
from pipeline.report.figures import confusion_figure
from pipeline.report.html import render
from pipeline.tracking import view
from pipeline.tracking.registry import register
from pipeline.tracking.store import connect
from pipeline.tracking.ui import free_port, ui_command
from tests.tracking.test_ui import served

pytest.importorskip("playwright", reason="playwright is not installed")


def script() -> ModuleType:
    """scripts/ui_pictures.py, which is no module of the package."""
    path = Path(__file__).resolve().parents[2] / "scripts" / "ui_pictures.py"
    spec = importlib.util.spec_from_file_location("ui_pictures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures = script()


@pytest.fixture(scope="module")
def address(example: Any, tmp_path_factory: pytest.TempPathFactory, real_figures: None) -> Iterator[str]:
    """The page on the store of the finished training, which has a page of its own among its artifacts."""
    if pictures.chromium() is None:
        pytest.skip("there is no Chromium on this machine")
    client, store = connect(example.uri), TrackingConfig(uri=example.uri)
    if not any(item.path.endswith(".html") for item in client.list_artifacts(example.result.run_id, "report")):
        page = render("base.html").replace("<body>", "<body><h1>A page of the report</h1>")
        client.log_text(example.result.run_id, page, "report/index.html")
    drawn = tmp_path_factory.mktemp("drawn") / "confusion.png"  # the training's has one pixel, see conftest
    confusion_figure(np.eye(3, dtype=int).tolist(), ["blue", "green", "red"], drawn, "clips")
    client.log_artifact(example.result.run_id, str(drawn), "report")
    register(store, "seen", example.result.run_id, "champion", {"why": "a test"})
    port = free_port(0)
    command, environment = ui_command(example.uri, port=port)
    place = f"http://127.0.0.1:{port}"
    with served(command, environment, tmp_path_factory.mktemp("ui"), place):
        yield place


@pytest.mark.skipif(os.name == "nt", reason="process groups of POSIX")
def test_a_person_sees_our_columns_the_description_pictures_pages_and_the_champion(address: str, example: Any) -> None:
    run_id = example.result.run_id
    experiment = connect(example.uri).get_run(run_id).info.experiment_id
    runs = f"{address}/#/experiments/{experiment}/runs"
    with pictures.browser(pictures.SETTINGS) as page:
        page.goto(f"{runs}?viewStateShareKey={view.KEY}")
        page.get_by_role("columnheader", name="test/top1", exact=True).first.wait_for()
        page.get_by_text("tiny", exact=True).first.wait_for()
        page.goto(f"{runs}/{run_id}")
        page.get_by_text("test top-1 1.000").wait_for()
        page.get_by_text(re.compile(r"^clips \([0-9a-f]{16}\)")).first.wait_for()
        page.goto(f"{runs}/{run_id}/artifacts")
        page.get_by_text("report", exact=True).first.click()
        page.get_by_text("confusion.png", exact=True).click()
        picture = page.locator("img[src^='blob:'], img[src*='confusion']").first
        picture.wait_for()
        page.wait_for_function("image => image.naturalWidth > 300", arg=picture.element_handle())
        page.get_by_text("index.html", exact=True).click()
        page.frame_locator("iframe").locator("h1").first.wait_for()
        page.goto(f"{address}/#/models/seen")
        page.get_by_text("champion").first.wait_for()


@pytest.mark.skipif(os.name == "nt", reason="process groups of POSIX")
def test_a_person_sees_a_runs_charts_and_compares_two_runs(address: str, example: Any) -> None:
    client, run_id = connect(example.uri), example.result.run_id
    first = client.get_run(run_id)
    other = client.create_run(first.info.experiment_id, run_name="other").info.run_id
    client.log_param(other, "recurrent.kind", "rnn")
    client.log_metric(other, "test/top1", 0.25)
    runs = f"{address}/#/experiments/{first.info.experiment_id}/runs"
    both = f'runs=["{run_id}","{other}"]&experiments=["{first.info.experiment_id}"]'
    with pictures.browser(pictures.SETTINGS) as page:
        page.goto(f"{runs}/{run_id}/model-metrics")
        page.get_by_placeholder("Search metric charts").fill("loss")
        page.get_by_text(f"{first.info.run_name} (step/loss)").first.wait_for()
        page.wait_for_function(
            "() => /step\\s+\\(1\\)[^]*train\\s+\\(1\\)[^]*val\\s+\\(1\\)/.test(document.body.innerText)"
        )
        page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(state="attached")
        page.goto(f"{runs}/{run_id}/system-metrics")
        page.get_by_text("process_memory_usage_megabytes", exact=True).first.wait_for()
        page.goto(f"{address}/#/compare-runs?{both}")
        page.get_by_text("Comparing 2 Runs").first.wait_for()
        page.get_by_text("recurrent.kind", exact=True).first.wait_for()
        for seen in ("other", first.data.params["recurrent.kind"], "rnn", "test/top1"):
            page.get_by_text(seen, exact=True).first.wait_for()
