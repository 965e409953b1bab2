"""Each task from a list to a tested model and on to tables: one number everywhere."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pipeline
from pipeline.config import AugmentationConfig, Config, DataConfig, TrackingConfig
from pipeline.data.clips import load_clip
from pipeline.data.targets import target_at
from pipeline.errors import ConfigError, DataError
from pipeline.model import checkpoint
from pipeline.report.tables import TASK_COLUMNS
from pipeline.report.text import print_metrics
from pipeline.stages.evaluate import evaluate
from pipeline.stages.ingest import clip_files
from pipeline.stages.predict import Predictor
from pipeline.stages.reports import classify_text
from pipeline.tracking.store import connect
from pipeline.video.reader import probe
from pipeline.video.writer import write_video

TASKS = ("frame_label", "regression", "frame_regression")
RATE, FRAMES = 10.0, 12
SCORES = {
    "frame_label": ("frame_accuracy", "macro_f1", "edit", "f1_10", "f1_25", "f1_50"),
    "regression": ("mae", "rmse", "r2"),
    "frame_regression": ("mae", "rmse", "r2"),
}
PICTURES = {
    "frame_label": {
        "ribbons.png", "confusion.png", "per_class.png", "per_class.csv", "calibration.png", "risk.png",
    },
    "regression": {"scatter.png"},
    "frame_regression": {"curves_over_time.png"},
}  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """One task's training on the clips of `lists`."""

    config: Config
    folder: Path
    result: Any
    predictor: Predictor
    clips: list[str]


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that turn from red to blue at some frame, brighter from frame to frame; a list for each task."""
    root = tmp_path_factory.mktemp("tasks")
    rng = np.random.default_rng(0)
    rows: dict[str, list[str]] = {"frame_label": ["path,start,end,label,group,split"]}
    rows |= {"regression": ["path,value,group,split"], "frame_regression": ["path,time,value,group,split"]}
    for number in range(12):
        name, turn = f"clip{number:02d}.avi", 3 + number % 6
        end = f"g{number:02d},{('train', 'train', 'val', 'test')[number % 4]}"
        frames = np.zeros((FRAMES, 32, 32, 3), np.int64)
        frames[:turn, ..., 0] = frames[turn:, ..., 2] = 90
        frames += 10 * np.arange(FRAMES)[:, None, None, None] + rng.integers(0, 30, frames.shape)
        write_video(str(root / name), frames.clip(0, 255).astype(np.uint8), RATE)
        change = turn / RATE
        rows["frame_label"] += [f"{name},0,{change},red,{end}", f"{name},{change},1,blue,{end}"]  # the last: no label
        rows["regression"].append(f"{name},{100 + turn},{end}")
        rows["frame_regression"] += [f"{name},0,{5 + turn},{end}", f"{name},0.9,{6 + turn},{end}"]
    for task, lines in rows.items():
        (root / f"{task}.csv").write_text("\n".join(lines) + "\n")
    return root


def config_for(make_config: Any, lists: Path, task: str, **changes: Any) -> Config:
    config: Config = make_config(
        task=task,
        data__root=str(lists / f"{task}.csv"),
        data__allow_leak=True,
        video__frames=6,
        augmentation=AugmentationConfig(crop=1.0, views=1),
        training__epochs=2,
        **changes,
    )
    return config


@pytest.fixture(scope="module", params=TASKS)
def finished(
    request: pytest.FixtureRequest, make_config: Any, lists: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    folder = tmp_path_factory.mktemp(request.param)
    tracking = TrackingConfig(uri=f"sqlite:///{lists}/mlflow.db", experiment="tasks")
    config = config_for(make_config, lists, request.param, tracking=tracking)
    result = pipeline.train(config, folder / "run")
    clips = [str(lists / f"clip{number:02d}.avi") for number in range(12)]
    return Finished(config, folder / "run", result, pipeline.load(result.checkpoint, "cpu"), clips)


def test_training_ends_with_the_tasks_scores_in_the_result_the_card_and_the_run(finished: Finished) -> None:
    task, test = finished.config.task, finished.result.test
    assert test["task"] == task and test["n"] == test["expected"] == 3 and test["coverage"] == 1
    names = [f"{name}{end}" for name in SCORES[task] for end in ("", "_low", "_high")]
    assert set(names) < test.keys() and "top1" not in test
    assert test["moments"] == {"frame_label": 3 * 5, "regression": 3, "frame_regression": 3 * 5}[task]
    score = "val_frame_accuracy" if task == "frame_label" else "val_mae"
    history = json.loads((finished.folder / "report/history.json").read_text())
    assert len(history) == 2 and all({"val_loss", score} < row.keys() for row in history)
    card = checkpoint.load(finished.folder / "best")[1]
    assert card.classes == (["blue", "red"] if task == "frame_label" else [])
    assert score in card.metrics and set(names) < card.metrics["test"].keys()
    recorded = connect(finished.config.tracking.uri or "").get_run(finished.result.run_id).data.metrics
    assert {score.replace("val_", "val/"), "val/loss", *(f"test/{name}" for name in SCORES[task])} < recorded.keys()
    assert recorded[f"test/{SCORES[task][0]}"] == test[SCORES[task][0]]


def test_the_report_has_the_tasks_pictures(finished: Finished) -> None:
    names = {path.name for path in (finished.folder / "report").iterdir()}
    always = {"index.html", "metrics.json", "history.json", "inside.json", "skipped.json", "curves.png", "inside.png"}
    always |= {"time.csv", "steps.csv"}
    assert names == always | PICTURES[finished.config.task]


def test_evaluate_gives_the_numbers_of_the_training(finished: Finished, tmp_path: Path) -> None:
    found = evaluate(finished.predictor, None, out=tmp_path / "out", workers=0)
    assert {key: found[key] for key in finished.result.test} == finished.result.test
    assert PICTURES[finished.config.task] < {path.name for path in (tmp_path / "out").iterdir()}
    text = print_metrics(found)
    first = text.splitlines()[0]
    assert first.startswith("frame accuracy 0." if finished.config.task == "frame_label" else "MAE")
    assert "coverage" in text and "3/3 clips, 3 groups" in text
    assert ("majority" in text) == (finished.config.task == "frame_label") != ("baseline" in text)


def test_classify_evaluate_and_the_api_have_one_answer(finished: Finished, tmp_path: Path) -> None:
    task, predictor = finished.config.task, finished.predictor
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"no video")
    out = tmp_path / "answers.jsonl"
    done = pipeline.classify(predictor, [*finished.clips, str(bad)], out, workers=0)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [tuple(row) for row in rows] == [TASK_COLUMNS[task]] * 13
    assert rows[-1]["status"] == "not a video" and (done.ok, done.failed) == (12, 1)
    for row, prediction in zip(rows, predictor.predict(finished.clips), strict=False):
        assert row["status"] == "ok" and row["frames"] == 6
        assert prediction.times is not None and prediction.times.shape == (6,)
        if task == "regression":
            assert prediction.values is not None and [row["value"]] == prediction.values.tolist()
        elif task == "frame_regression":
            assert prediction.values is not None
            assert [item["value"] for item in row["values"]] == prediction.values.tolist()
            assert [item["time"] for item in row["values"]] == prediction.times.tolist()
        else:
            assert prediction.probabilities is not None and prediction.probabilities.shape == (6, 2)
            check_segments(row, prediction.probabilities, prediction.times)
    assert "not a video" in classify_text(replace(done, out=None))


def check_segments(row: dict[str, Any], probabilities: np.ndarray, times: np.ndarray) -> None:
    """The segments cover the clip and say at each moment what the probabilities say."""
    segments = row["segments"]
    assert segments[0]["start"] == 0 and segments[-1]["end"] == row["duration"]
    assert [one["end"] for one in segments[:-1]] == [one["start"] for one in segments[1:]]
    for segment in segments:
        inside = (times >= segment["start"]) & (times < segment["end"])
        label = ["blue", "red"].index(segment["label"])
        assert inside.any() and (probabilities[inside].argmax(axis=1) == label).all()
        assert segment["probability"] == pytest.approx(probabilities[inside, label].mean())
    lasting = {name: sum(s["end"] - s["start"] for s in segments if s["label"] == name) for name in ("blue", "red")}
    assert lasting[row["label"]] == max(lasting.values())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_over_time_have_a_flat_one_beside_them(finished: Finished, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"answers{suffix}"
    done = pipeline.classify(finished.predictor, finished.clips[:3], out, workers=0)
    if finished.config.task == "regression":
        assert done.flat is None and [path.name for path in tmp_path.iterdir()] == [out.name]
        return
    column = "segments" if finished.config.task == "frame_label" else "values"
    assert done.flat == str(tmp_path / f"answers.{column}.csv")
    with Path(done.flat).open(newline="") as file:
        flat = list(csv.DictReader(file))
    table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert list(table.columns) == list(TASK_COLUMNS[finished.config.task])
    expected = []
    for path, items in zip(table["path"], table[column], strict=True):
        expected += [{"path": path, **item} for item in (json.loads(items) if suffix == ".csv" else items)]
    assert [{key: str(value) for key, value in item.items()} for item in expected] == flat


def test_streaming_gives_the_answer_of_the_whole_clip(finished: Finished) -> None:
    predictor, path = finished.predictor, finished.clips[0]
    clip = load_clip(path, probe(path).times, predictor.plan)
    whole, state = predictor.answer(clip), None
    for t in range(clip.length):
        now, state = predictor.step({name: x[t] for name, x in clip.inputs.items()}, state)
        if finished.config.task != "regression":
            assert now == pytest.approx(whole[t], abs=1e-4)
    if finished.config.task == "regression":
        assert now == pytest.approx(whole, abs=1e-4)


def test_numbers_are_standardised_by_training_clips_alone(finished: Finished) -> None:
    model, turns = finished.predictor.model, np.array([3 + i % 6 for i in range(12) if i % 4 < 2], dtype=np.float64)
    if not model.numeric:
        assert "target_mean" not in model.state_dict()
        return
    values = 100 + turns
    if finished.config.task == "frame_regression":  # the curve 5 + turn to 6 + turn, at the moments it is known
        (prediction,) = finished.predictor.predict(finished.clips[:1], 0)
        assert prediction.times is not None
        known = prediction.times[prediction.times < 0.95]
        values = (5 + turns[:, None] + known / 0.9).ravel()
    assert float(model.target_mean) == pytest.approx(values.mean())
    assert float(model.target_std) == pytest.approx(values.std(), rel=1e-5)
    assert finished.result.test["baseline"]["value"] == float(model.target_mean)


def test_a_frozen_encoder_and_a_resumed_training_work_for_numbers_over_time(
    make_config: Any, lists: Path, tmp_path: Path, frozen_changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages import fit, keeper, train

    config = config_for(make_config, lists, "frame_regression", **frozen_changes)
    whole = pipeline.train(config, tmp_path / "whole")
    epoch = fit._epoch

    def interrupted(step: Any, *rest: Any) -> Any:
        if rest[3].epoch == 1:
            raise KeyboardInterrupt
        return epoch(step, *rest)

    monkeypatch.setattr(keeper, "SAVE_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, tmp_path / "run")
    assert pipeline.train(config, tmp_path / "run", resume=True).test == whole.test


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("frame_label", {"training__balance": "sampler"}, "a clip has none; balance weights"),
        ("regression", {"training__balance": "sampler"}, "a clip has none; set it to none"),
        ("regression", {"training__balance": "weights"}, "training.balance is about classes"),
        ("frame_regression", {"training__label_smoothing": 0.1}, "training.label_smoothing is about classes"),
    ],
)
def test_options_about_classes_are_refused_where_there_are_none(
    make_config: Any, lists: Path, tmp_path: Path, task: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline.train(config_for(make_config, lists, task, **changes), tmp_path / "run")


def test_class_weights_count_labelled_moments(make_config: Any, lists: Path, tmp_path: Path) -> None:
    config = config_for(make_config, lists, "frame_label", training__balance="weights", data__val=0.0)
    assert pipeline.train(config, tmp_path / "run").test["n"] == 3


def test_a_class_over_time_that_the_model_does_not_know_is_refused(
    make_config: Any, lists: Path, tmp_path: Path
) -> None:
    config = config_for(make_config, lists, "frame_label")
    result = pipeline.train(replace(config, training=replace(config.training, epochs=1)), tmp_path / "run")
    strange = lists / "strange.csv"
    strange.write_text("path,start,end,label\nclip00.avi,0,1,green\nclip01.avi,0,1,red\n")
    with pytest.raises(DataError, match="does not know: green"):
        evaluate(pipeline.load(result.checkpoint, "cpu"), strange, split="all", workers=0)


def test_segments_written_by_classify_can_be_learned_from(finished: Finished, tmp_path: Path) -> None:
    if finished.config.task != "frame_label":
        return
    done = pipeline.classify(finished.predictor, finished.clips[:4], tmp_path / "answers.csv", workers=0)
    data = pipeline.ingest(DataConfig(root=done.flat), split=False, task="frame_label")
    assert data.summary["ok"] == 4
    for file, prediction in zip(
        clip_files(data.table, ["blue", "red"]), finished.predictor.predict(finished.clips[:4], 0), strict=True
    ):
        assert prediction.times is not None and prediction.probabilities is not None
        again = target_at(file.target, prediction.times)
        assert np.array_equal(again, prediction.probabilities.argmax(axis=1))
