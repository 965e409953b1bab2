"""A folder with unreadable files, one that crashes the decoder and one that hangs it: every stage finishes and says
what it left out.

Both files are fine when they are examined (the examination has tests of its own) and misbehave from then on, so that
it is the loaders that meet them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, LimitsConfig
from pipeline.stages.classify import classify
from pipeline.stages.ingest import ingest
from pipeline.stages.train import Trained, train
from tests.hostile import hostile_environment

LIMITS = LimitsConfig(seconds=5.0, memory=1000)
UNREADABLE = 5


@dataclass(frozen=True)
class Folder:
    """Readable clips, `UNREADABLE` files that are no video, and two that misbehave."""

    root: Path
    crashing: Path
    hanging: Path

    @property
    def lost(self) -> dict[str, str]:
        return {str(self.crashing): "decoder crashed", str(self.hanging): "timed out"}


@pytest.fixture(scope="module")
def folder(tiny_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("isolation") / "clips"
    shutil.copytree(tiny_clips, root)
    source = sorted((root / "red").glob("v_red_g0*_c01*"))[0].read_bytes()
    crashing, hanging = (root / "red" / f"v_red_g09_c0{name}.avi" for name in ("1.crash", "2.hang"))
    for path, other in ((crashing, b"1"), (hanging, b"2")):
        path.write_bytes(source + other)  # its own content digest
    return Folder(root, crashing, hanging)


@pytest.fixture
def armed(folder: Folder, make_config: Any, tmp_path: Path) -> Iterator[None]:
    """Everything is examined and remembered; only then do the two files misbehave."""
    ingest(config_of(make_config, folder).data)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hostile_environment(tmp_path / "hostile").items():
            patch.setenv(name, value)
        yield


def config_of(make_config: Any, folder: Folder, **changes: Any) -> Config:
    changes = {"limits": LIMITS, "training__workers": 2, "data__root": str(listed(folder))} | changes
    return make_config(**changes)  # type: ignore[no-any-return]


def listed(folder: Folder) -> Path:
    """Groups 1 to 3 and the two that misbehave are trained on, group 4 validates, group 5 tests."""
    path = folder.root / "clips.csv"
    if not path.exists():
        rows = ["path,label,group,split"]
        for clip in sorted(folder.root.glob("*/v_*")):
            group = re.findall(r"_g(\d+)_", clip.name)[0]
            split = {"04": "val", "05": "test"}.get(group, "train")
            rows.append(f"{clip.relative_to(folder.root)},{clip.parent.name},{group},{split}")
        path.write_text("\n".join(rows) + "\n")
    return path


def skipped(trained: Trained) -> dict[str, str]:
    rows = json.loads((Path(trained.folder) / "report" / "skipped.json").read_text())
    return {row["path"]: row["reason"] for row in rows}


def check(trained: Trained, folder: Folder) -> None:
    left_out = skipped(trained)
    assert {path: reason for path, reason in left_out.items() if "g09" in path} == folder.lost
    assert len(left_out) == UNREADABLE + 2
    assert trained.test["expected"] == 7 and trained.test["n"] == 6  # an unreadable file is in the test group


def test_training_an_encoder_goes_on_without_the_files_that_misbehave(
    folder: Folder, armed: None, make_config: Any, tmp_path: Path
) -> None:
    trained = train(config_of(make_config, folder), tmp_path / "run")
    check(trained, folder)
    history = json.loads((Path(trained.folder) / "report" / "history.json").read_text())
    assert len(history) == 2


def test_features_are_extracted_without_the_files_that_misbehave(
    folder: Folder, armed: None, make_config: Any, frozen_changes: dict[str, Any], tmp_path: Path
) -> None:
    check(train(config_of(make_config, folder, **frozen_changes), tmp_path / "run"), folder)


def test_classification_gives_each_file_a_row(
    folder: Folder, armed: None, predictor: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(predictor, "plan", replace(predictor.plan, limits=LIMITS))
    done = classify(predictor, folder.root, out=tmp_path / "labels.csv", workers=2)
    assert done.rows == 30 + UNREADABLE + 2 and done.ok == 30
    assert done.reasons == {"not a video": UNREADABLE, "decoder crashed": 1, "timed out": 1}
    status = {row["path"]: row["status"] for row in done.table}
    assert {path: status[path] for path in folder.lost} == folder.lost
