"""Folds: each clip is tested once, and what belongs together stays together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import DataConfig
from pipeline.data import folds
from pipeline.data.folds import assign_fold, fold_notes, fold_of, join_alike
from pipeline.errors import ConfigError, DataError
from pipeline.stages.ingest import ingest
from pipeline.video.writer import write_video

LEAVE_ONE_OUT: Any = "leave-one-group-out"


def catalog(groups: Sequence[int | None], labels: str = "ab", lost: Sequence[int] = ()) -> pd.DataFrame:
    """A catalog of clips with different contents; the rows in `lost` do not decode."""
    count = len(groups)
    return pd.DataFrame({
        "path": [f"/clips/{number}.mp4" for number in range(count)],
        "label": [labels[number % len(labels)] for number in range(count)],
        "group": pd.Series([None if group is None else f"group {group}" for group in groups], dtype="str"),
        "split": pd.Series([None] * count, dtype="str"),
        "unit": [f"group {group}" if group is not None else f"clip {row}" for row, group in enumerate(groups)],
        "digest": [f"{number:064x}" for number in range(count)],
        "clip": [f"{number:064x}" for number in range(count)],
        "status": ["not a video" if number in lost else "ok" for number in range(count)],
    })  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 8), min_size=20, max_size=50),
    st.sets(st.integers(0, 49), max_size=12),
    st.integers(2, 5) | st.just(LEAVE_ONE_OUT),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_each_clip_is_tested_once_and_groups_stay_whole(
    groups: list[int], lost: set[int], count: Any, seed: int, random: Any
) -> None:
    table, data = catalog(groups, lost=sorted(lost)), DataConfig(folds=count, split_seed=seed)
    readable = table[table["status"] == "ok"]
    units = readable["unit"].nunique()
    if units < (2 if count == LEAVE_ONE_OUT else count):
        with pytest.raises(DataError, match="group"):
            fold_of(table, data)
        return
    found = fold_of(table, data)
    wanted = units if count == LEAVE_ONE_OUT else count
    assert set(found[table["status"] == "ok"]) == set(range(1, wanted + 1))  # none is without a clip to be tested
    assert (table.assign(fold=found).groupby("unit")["fold"].nunique() == 1).all()
    order = list(range(len(table)))
    random.shuffle(order)
    assert fold_of(table.iloc[order], data).tolist() == found[order].tolist()


def test_another_seed_gives_other_folds_and_the_same_seed_the_same() -> None:
    table = catalog(list(range(40)))
    one, again, other = (fold_of(table, DataConfig(folds=4, split_seed=seed)) for seed in (0, 0, 1))
    assert one.tolist() == again.tolist() != other.tolist()


def test_classes_are_even_where_groups_allow() -> None:
    table = catalog(list(range(60)), "aab")
    found = fold_of(table, DataConfig(folds=5))
    assert all(table["label"][found == fold].value_counts().to_dict() == {"a": 8, "b": 4} for fold in range(1, 6))


def test_a_class_with_fewer_clips_than_folds_is_no_obstacle() -> None:
    table = catalog(list(range(12)), "abcdef")  # two clips of each class
    found = fold_of(table, DataConfig(folds=4))
    assert np.bincount(found).tolist() == [0, 3, 3, 3, 3]


@pytest.fixture
def nothing_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """These clips are no files that could be looked at."""
    monkeypatch.setattr(folds, "look_alikes", lambda table: [])


@pytest.mark.usefixtures("nothing_alike")
def test_a_fold_is_a_test_split_and_validation_comes_from_the_other_groups() -> None:
    table = catalog([number // 2 for number in range(60)])
    table["split"] = pd.Series(["test", "train"] * 30, dtype="str")  # of the list: not used
    tested = np.zeros(60, dtype=int)
    chosen = set()
    for fold in range(1, 6):
        split = assign_fold(table, DataConfig(folds=5, fold=fold, val=0.25, test=0.9 - 0.25))
        assert (split.groupby("unit")["split"].nunique() == 1).all()
        assert split["split"].value_counts().to_dict() == {"train": 36, "val": 12, "test": 12}  # 0.25 of 48
        assert split["group"].tolist() == table["group"].tolist()
        tested += (split["split"] == "test").to_numpy()
        chosen.add(tuple(split["unit"][split["split"] == "val"]))
    assert (tested == 1).all() and len(chosen) == 5
    none = assign_fold(table, DataConfig(folds=5, fold=1, val=0.0))
    assert set(none["split"]) == {"train", "test"}


@pytest.mark.usefixtures("nothing_alike")
def test_a_fold_that_is_not_there_is_refused() -> None:
    table = catalog([0, 1, 2])
    with pytest.raises(ConfigError, match=r"3 folds; name one of them with data\.fold \(now 4\)"):
        assign_fold(table, DataConfig(folds=LEAVE_ONE_OUT, fold=4))
    with pytest.raises(ConfigError, match=r"data\.fold"):
        assign_fold(table, DataConfig(folds=2))


def test_what_cannot_be_divided_is_said() -> None:
    with pytest.raises(DataError, match=r"3 groups cannot make 4 folds; lower data\.folds"):
        fold_of(catalog([0, 1, 2, 2]), DataConfig(folds=4))
    with pytest.raises(DataError, match="no groups are known, so none can be left out"):
        fold_of(catalog([None] * 6), DataConfig(folds=LEAVE_ONE_OUT))
    with pytest.raises(DataError, match="one group"):
        fold_of(catalog([1] * 6), DataConfig(folds=LEAVE_ONE_OUT))
    data = DataConfig(folds=2)
    unknown = catalog([None] * 6)
    assert any("no groups are known: only" in note for note in fold_notes(unknown, fold_of(unknown, data), data))
    known = catalog([0, 0, 1, 1, 2, 2])
    (note,) = fold_notes(known, fold_of(known, data), data)
    assert "data.test is not used" in note
    rare = catalog([0, 1, 2, 2]).assign(label=["a", "a", "b", "b"])
    notes = fold_notes(rare, np.array([1, 2, 3, 3]), data)
    assert [note for note in notes if "fold 3 has no training clip for: b" in note]


def test_clips_that_look_alike_are_one_unit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 255, (8, 6, 8, 3), dtype=np.uint8) for _ in range(5)]
    # the last is the first again, encoded anew under another label
    for number, coarse in enumerate([*clips, clips[0]]):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        frames = [cv2.resize(frame, (96, 72), interpolation=cv2.INTER_CUBIC) for frame in coarse]
        write_video(str(folder / f"{number}.{'mp4' if number < 5 else 'avi'}"), np.array(frames), 10.0)
    table = ingest(DataConfig(root=str(tmp_path)), split=False).table
    assert table["unit"].nunique() == 6
    joined = join_alike(table)
    unit = dict(zip(joined["path"].map(lambda path: Path(path).stem), joined["unit"], strict=True))
    assert unit["0"] == unit["5"] and joined["unit"].nunique() == 5
    for fold in (1, 2):  # training finds nothing that lies on both sides
        assert not ingest(DataConfig(root=str(tmp_path), folds=2, fold=fold, val=0.0)).leaks
