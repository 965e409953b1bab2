"""B17: clips that are too short or too long are removed in silence, from the test set too (harvitronix)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config import DataConfig
from pipeline.data import catalog
from pipeline.stages.classify import classify
from pipeline.stages.evaluate import evaluate
from pipeline.stages.ingest import ingest
from pipeline.stages.models import load_model
from pipeline.stages.train import train
from pipeline.video.writer import write_video

COLOURS = {"blue": (40, 60, 200), "red": (200, 50, 40)}
LENGTHS = (1, 2, 12, 320)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list whose every split holds clips of 1, 2, 12 and 320 frames, a broken one and one that is not there."""
    folder = tmp_path_factory.mktemp("listed")
    rows = []
    for split in ("train", "val", "test"):
        for label, colour in COLOURS.items():
            for count in LENGTHS:
                name = f"{split}_{label}_{count}.mkv"
                noise = np.random.default_rng([len(rows), count]).integers(-20, 20, (count, 16, 16, 3))
                write_video(str(folder / name), np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8), 25.0)
                rows.append({"path": name, "label": label, "split": split})
        (folder / f"{split}_broken.mp4").write_bytes(b"broken " + split.encode())
        rows.append({"path": f"{split}_broken.mp4", "label": "red", "split": split})
        rows.append({"path": f"{split}_gone.mp4", "label": "blue", "split": split})
    pd.DataFrame(rows).to_csv(folder / "clips.csv", index=False)
    return folder


def test_every_line_of_the_list_is_a_row_with_its_split_and_its_status(listed: Path) -> None:
    data = ingest(DataConfig(root=str(listed)))
    given = pd.read_csv(listed / "clips.csv")
    assert [Path(path).name for path in data.table["path"]] == given["path"].tolist()
    assert data.table["split"].tolist() == given["split"].tolist()
    status = dict(zip((Path(path).name for path in data.table["path"]), data.table["status"], strict=True))
    for split in ("train", "val", "test"):
        assert status.pop(f"{split}_broken.mp4") == "not a video" and status.pop(f"{split}_gone.mp4") == "not found"
        assert {Path(file.path).name for file in data.files(split)} == {
            name for name in status if name.startswith(split)
        }
    assert set(status.values()) == {"ok"}


@pytest.mark.parametrize("sampling", ["uniform", "rate"])
def test_training_and_evaluation_account_for_every_file(
    listed: Path, make_config: Any, tmp_path: Path, sampling: str
) -> None:
    config = make_config(data=DataConfig(root=str(listed)), video__sampling=sampling, training__epochs=1)
    result = train(config, tmp_path / "run")
    assert (result.test["n"], result.test["expected"], result.test["coverage"]) == (8, 10, 0.8)
    failed = {Path(item["path"]).name: item["reason"] for item in result.test["failed"]}
    assert failed == {"test_broken.mp4": "not a video", "test_gone.mp4": "not found"}
    table = catalog.read(tmp_path / "run/catalog.parquet")
    assert len(table) == 30
    predictor = load_model(str(tmp_path / "run"), "cpu")
    assert sum(len(predictor.card.split[name]) for name in ("train", "val", "test")) == 30
    metrics = evaluate(predictor, None, "all", workers=0)
    assert metrics["n"] + len(metrics["failed"]) == metrics["expected"] == 30


def test_classification_gives_a_row_for_every_input(predictor: Any, listed: Path, tmp_path: Path) -> None:
    names = pd.read_csv(listed / "clips.csv")["path"].tolist()
    (tmp_path / "list.txt").write_text("\n".join(str(listed / name) for name in names))
    result = classify(predictor, [str(tmp_path / "list.txt")], workers=2)
    assert [Path(row["path"]).name for row in result.table] == names
    assert (result.rows, result.ok, result.failed) == (30, 24, 6)
