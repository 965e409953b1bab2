"""B11: clips of one recording, or copies of one file, on both sides of a split (HHTseng, MATLAB)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config import DataConfig
from pipeline.data import catalog
from pipeline.data.layouts import discover
from pipeline.data.splits import assign
from pipeline.errors import DataError
from pipeline.video.writer import write_video

GROUPS, CLIPS = 12, 3


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of UCF101-like names, 12 groups of 3 clips each; one file is copied into another group."""
    root = tmp_path_factory.mktemp("ucf")
    rng = np.random.default_rng(0)
    for label in ("Archery", "Bowling"):
        (root / label).mkdir()
        for group in range(1, GROUPS + 1):
            for clip in range(1, CLIPS + 1):
                frames = rng.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
                write_video(str(root / label / f"v_{label}_g{group:02d}_c{clip:02d}.avi"), frames, 10.0)
    shutil.copy(root / "Archery/v_Archery_g01_c01.avi", root / "Bowling/v_Bowling_g07_c01.avi")
    return root


@pytest.fixture(scope="module")
def table(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    entries = discover(DataConfig(root=str(data_folder))).entries
    return catalog.build(entries, workers=1, cache=str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("seed", range(10))
def test_no_group_and_no_copy_straddles_two_splits(table: pd.DataFrame, seed: int) -> None:
    done = assign(table, DataConfig(root="x", split_seed=seed))  # type: ignore[arg-type]
    held = {str(split): set(part["group"]) for split, part in done.groupby("split")}
    assert sorted(held) == ["test", "train", "val"]
    assert not held["train"] & held["val"] and not held["train"] & held["test"] and not held["val"] & held["test"]
    contents = {str(split): set(part["digest"]) for split, part in done.groupby("split")}
    assert not contents["train"] & (contents["val"] | contents["test"])
    copies = done[done["group"].isin(["01", "07"])]
    assert copies["split"].nunique() == 1 and copies["unit"].unique().tolist() == ["01"]


def test_a_list_that_splits_a_group_is_refused(table: pd.DataFrame) -> None:
    splits = ["test" if path.endswith("g03_c02.avi") else "train" for path in table["path"]]
    with pytest.raises(DataError, match=r"group '03'.*g03_c02\.avi in test"):
        assign(table.assign(split=splits), DataConfig(root="x"))


def test_a_list_that_splits_two_copies_is_refused(table: pd.DataFrame) -> None:
    splits = ["test" if group == "07" else "train" for group in table["group"]]
    with pytest.raises(DataError, match="two splits"):
        assign(table.assign(split=splits), DataConfig(root="x"))
