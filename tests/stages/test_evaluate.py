from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import RecurrentConfig, to_dict
from pipeline.data import catalog
from pipeline.data.clips import ClipInputs
from pipeline.errors import DataError
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.cross_validate import cross_validate
from pipeline.stages.evaluate import evaluate, identities, select
from pipeline.stages.predict import Predictor


def elsewhere(clips: Path, folder: Path, table: pd.DataFrame, splits: set[str]) -> Path:
    """Readable clips of some splits under other names, without anything that tells their group."""
    for number, row in enumerate(table[table["split"].isin(splits) & (table["status"] == "ok")].itertuples()):
        place = folder / str(row.label)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(row.path), place / f"clip {number}{Path(str(row.path)).suffix}")
    return folder


def rooted(predictor: Predictor, root: Path) -> Predictor:
    """The same model, trained on data that lies elsewhere now."""
    config = predictor.card.config | {"data": predictor.card.config["data"] | {"root": str(root)}}
    card = replace(predictor.card, config=config)
    return Predictor(predictor.model, card, predictor.device, predictor.digest)


@pytest.fixture(scope="module")
def table(example: Any) -> pd.DataFrame:
    return catalog.read(example.folder / "catalog.parquet")


def test_by_default_the_models_own_test_split_is_scored(predictor: Predictor, example: Any) -> None:
    metrics = evaluate(predictor, None)
    shared = {key: metrics[key] for key in metrics.keys() & example.result.test.keys() if key not in ("groups", "note")}
    for key in ("top1", "macro_f1", "log_loss", "confusion", "n", "expected", "coverage", "failed"):
        assert shared[key] == example.result.test[key]
    assert metrics["split"] == "test" and metrics["seen"] == 0 and metrics["model"] == predictor.digest


@pytest.mark.parametrize(("split", "n", "expected"), [("val", 6, 7), ("train", 12, 14), ("all", 30, 35)])
def test_another_split_on_request(predictor: Predictor, split: Any, n: int, expected: int) -> None:
    metrics = evaluate(predictor, None, split)
    assert (metrics["n"], metrics["expected"], metrics["split"]) == (n, expected, split)


def test_clips_are_recognised_by_content_under_other_names(
    predictor: Predictor, table: pd.DataFrame, tiny_clips: Path, tmp_path: Path
) -> None:
    own = elsewhere(tiny_clips, tmp_path / "own", table, {"train", "val", "test"})
    metrics = evaluate(predictor, str(own))
    assert (metrics["n"], metrics["expected"]) == (12, 12)
    assert metrics["log_loss"] == pytest.approx(evaluate(predictor, None)["log_loss"], abs=1e-12)


def test_in_other_data_what_the_model_learned_from_is_not_scored(
    predictor: Predictor, table: pd.DataFrame, tiny_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = elsewhere(tiny_clips, tmp_path / "mixed", table, {"train", "val"})
    with pytest.raises(DataError, match="no clip of the test split"):
        evaluate(predictor, str(mixed))
    shutil.copy(next((mixed / "red").iterdir()), mixed / "red" / "new.avi")
    with (mixed / "red" / "new.avi").open("ab") as file:
        file.write(b"\0")  # other content, same pictures
    metrics = evaluate(predictor, str(mixed))
    assert (metrics["n"], metrics["seen"]) == (1, 18)
    assert "18 clips are not scored" in capsys.readouterr().err
    assert evaluate(predictor, str(mixed), "all")["n"] == 19


def test_a_test_clip_that_vanished_lowers_the_coverage(
    predictor: Predictor, table: pd.DataFrame, tiny_clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_clips, tmp_path / "clips")
    gone = table[(table["split"] == "test") & (table["status"] == "ok")].iloc[0]
    (tmp_path / "clips" / Path(gone["path"]).relative_to(tiny_clips)).unlink()
    metrics = evaluate(rooted(predictor, tmp_path / "clips"), None)
    assert (metrics["n"], metrics["expected"], metrics["coverage"]) == (11, 14, 11 / 14)
    assert {"path": gone["clip"][:24], "reason": "not found"} in metrics["failed"]


def test_a_file_that_vanishes_between_ingest_and_scoring_is_a_named_failure(
    predictor: Predictor, tiny_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages import evaluate as stage

    shutil.copytree(tiny_clips, tmp_path / "clips")
    find = stage.ingest

    def and_lose_one(*args: Any, **kwargs: Any) -> Any:
        found = find(*args, **kwargs)
        own = set(predictor.card.split["test"])
        lost = next(file for file in found.table.itertuples() if str(file.digest)[:24] in own and file.status == "ok")
        Path(str(lost.path)).unlink()
        return found

    monkeypatch.setattr(stage, "ingest", and_lose_one)
    metrics = evaluate(rooted(predictor, tmp_path / "clips"), None)
    assert metrics["n"] == 11 and metrics["expected"] == 14
    assert [item["reason"] for item in metrics["failed"]].count("not found") == 1


def test_a_class_that_the_model_does_not_know_is_refused(
    predictor: Predictor, table: pd.DataFrame, tiny_clips: Path, tmp_path: Path
) -> None:
    other = elsewhere(tiny_clips, tmp_path / "other", table, {"test"})
    (other / "red").rename(other / "vermilion")
    with pytest.raises(
        DataError, match="does not know: vermilion; data: blue, green, vermilion; model: blue, green, red"
    ):
        evaluate(predictor, str(other))


def test_segments_of_one_file_are_clips_of_their_own(make_config: Any, tiny_clips: Path, tmp_path: Path) -> None:
    """Scoring took the second segment of a file for the first one, predicted twice, and failed after the training."""
    rows = []
    for path in sorted(tiny_clips.glob("*/v_*_c01.*")):
        label, group = path.stem.split("_")[1:3]
        rows += [f"{path},{label},{group},,0.2", f"{path},{label},{group},0.2,"]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group,start,end", *rows]) + "\n")
    config = make_config(data__root=str(tmp_path / "clips.csv"), data__folds=2, data__val=0.0, training__epochs=1)
    pooled = cross_validate(config, tmp_path / "run").pooled
    assert pooled["n"] == pooled["expected"] == 30
    table = pd.read_csv(tmp_path / "run/report/predictions.csv")
    assert table["path"].nunique() == 30 and table["path"].str.contains("#t=,0.2").sum() == 15


def test_a_recurrence_answers_otherwise_to_shuffled_moments(predictor: Predictor) -> None:
    plain, shuffled, again = (evaluate(predictor, None, shuffle=shuffle) for shuffle in (False, True, True))
    assert not plain["shuffled"] and shuffled["shuffled"]
    counted = [len(found.pop("readings")) for found in (plain, shuffled, again)]
    assert counted == [counted[0], counted[0] + 1, counted[0] + 2]
    assert shuffled == again and shuffled["log_loss"] != plain["log_loss"]
    assert {key: shuffled[key] for key in ("n", "expected", "failed")} == {
        key: plain[key] for key in ("n", "expected", "failed")
    }


def test_pooling_alone_does_not_see_the_order_and_moments_keep_their_answers(make_config: Any) -> None:
    clip = ClipInputs(
        {"rgb": np.random.default_rng(0).integers(0, 255, (4, 3, 32, 32), dtype=np.uint8)}, np.arange(4.0)
    )
    for task, recurrent in (
        ("label", RecurrentConfig("none", pooling="mean")),
        ("frame_label", RecurrentConfig("none")),
    ):
        config = make_config(task=task, recurrent=recurrent)
        model = build_classifier(config, 3)
        predictor = Predictor(model, Card(to_dict(config), ["a", "b", "c"]), torch.device("cpu"), "")
        answer = predictor.answer(clip)
        assert predictor.answer_shuffled(clip, "ab" * 32) == pytest.approx(answer, abs=1e-6)
        assert answer.shape == ((3,) if task == "label" else (4, 3))
    order = np.array([2, 0, 3, 1])
    assert clip.reordered(order).times.tolist() == [2.0, 0.0, 3.0, 1.0]


def test_the_report_is_written(predictor: Predictor, tmp_path: Path) -> None:
    metrics = evaluate(predictor, None, out=tmp_path / "report")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    pictures = {"confusion.png", "per_class.png", "calibration.png", "risk.png"}
    assert names - {"mistakes.jpg"} == {"index.html", "metrics.json", "per_class.csv", *pictures}
    assert ("mistakes.jpg" in names) == bool(metrics["mistakes"])
    assert json.loads((tmp_path / "report/metrics.json").read_text()) == metrics
    rows = pd.read_csv(tmp_path / "report/per_class.csv")
    assert rows["class"].tolist() == ["blue", "green", "red"] and rows["support"].sum() == 12


def test_a_file_without_content_is_recognised_by_its_place() -> None:
    table = pd.DataFrame({"path": ["a/x.avi", "b/y.avi", "c/z.avi"], "clip": ["d" * 64, "", None]})
    assert identities(table).tolist() == ["d" * 24, "path:b/y.avi", "path:c/z.avi"]
    chosen, seen = select(table, {"train": ["path:b/y.avi"], "val": [], "test": []}, "test", home=False)
    assert chosen["path"].tolist() == ["a/x.avi", "c/z.avi"] and seen == 1


def test_test_clips_that_vanished_lower_the_coverage_however_the_folder_is_named() -> None:
    table = pd.DataFrame({"path": ["a/x.avi", "b/y.avi"], "clip": ["d" * 64, "e" * 64]})
    own = {"train": [], "val": [], "test": ["d" * 24, "f" * 24]}
    at_home, _ = select(table, own, "test", home=True)
    elsewhere, _ = select(table, own, "test", home=False)
    assert at_home["path"].tolist() == ["a/x.avi"]
    assert elsewhere["path"].tolist() == ["a/x.avi", "b/y.avi"]  # nothing that is unseen is passed over
