"""The questions that docs/tracking.md asks the store, asked of a real one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.M | re.S)[-1]


@pytest.fixture
def default_store() -> Iterator[None]:
    """MLflow's own current store is the process's, not a client's."""
    import mlflow

    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


def test_the_usual_questions_are_answered(
    example: Any, default_store: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.config import TrackingConfig
    from pipeline.tracking.runs import end_early, start

    lost = start(TrackingConfig(uri=example.uri, experiment="tests"), "lost")
    end_early(lost, RuntimeError("the GPU fell off"))
    start(TrackingConfig(uri=example.uri, experiment="video-lstm-classify"), "archive").finish()
    asked = QUESTIONS.replace('"sqlite:///mlflow.db"', repr(example.uri)).replace('"video-lstm"', '"tests"')
    assert asked.count("tests") == 1 and example.uri in asked
    asked = asked.replace("> 0.99", "> 0.8").replace("> 0.33", "> 0")  # of the tiny clips some are damaged on purpose
    with pd.option_context("display.width", 400, "display.max_columns", None):
        exec(compile(asked, "docs/tracking.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.count("tiny") >= 3 and "lost" in said and "0 runs below" in said
    assert "'ok': 30" in said and "time/fit" in said and "(3, " in said


def documented(heading: str) -> list[str]:
    """The names in the first column of the tables below a heading, with `...` filled in from the name before."""
    part = TEXT[TEXT.index(heading) :]
    found: list[str] = []
    for row in re.findall(r"^\| (`[^|]*`) \|", part[: part.index("**Artifacts**")], flags=re.M):
        found += re.findall(r"`([^`]+)`", row)
    return found


def test_every_metric_and_tag_of_a_training_is_documented(example: Any) -> None:
    from pipeline.tracking.store import connect

    run = connect(example.uri).get_run(example.result.run_id)
    names = documented("**Metrics**")
    stems = {name.removeprefix("...").lstrip("_") for name in names}
    for metric in run.data.metrics:
        metric = metric.replace("evaluate/", "test/")  # the same numbers of a later evaluation
        known = metric in names or any(stem and metric.endswith(stem) for stem in stems)
        group = metric.rsplit("_", 1)[0]
        assert known or group in names or metric.split("/")[0] in ("gates", "updates", "gradients"), metric
    for tag in run.data.tags:
        hidden = tag in ("mlflow.runName", "mlflow.note.content", "mlflow.source.type")
        family = f"{tag.split('.')[0]}.*" in names or tag.startswith(("version.", "mlflow."))
        assert hidden or family or tag in names, tag
