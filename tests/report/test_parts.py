from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import DataError
from pipeline.report import parts as room
from pipeline.report.parts import Parts, is_parts
from pipeline.report.tables import COLUMNS


def row(number: int) -> dict[str, Any]:
    return {"path": f"{number:03d}.mp4", "status": "ok", "label": "a", "probability": number / 100}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PART_ROWS", 4)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_table_is_a_folder_where_its_name_has_no_suffix() -> None:
    assert is_parts("labels") and is_parts(Path("a.b/labels"))
    assert not is_parts("labels.parquet")


def test_a_part_is_there_as_soon_as_it_is_full_and_all_of_them_are_one_table(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "a" / "labels", COLUMNS, new=True, replace=False)
    for number in range(9):
        parts.add(row(number))
        assert len(names(parts.folder)) == (number + 1) // 4
    parts.finish()
    parts.finish()
    assert names(parts.folder) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    table = pd.read_parquet(parts.folder)
    assert table.path.tolist() == [f"{number:03d}.mp4" for number in range(9)]
    assert list(table.columns) == list(COLUMNS)


def test_work_that_goes_on_writes_the_part_that_was_cut_short_once_more(tmp_path: Path) -> None:
    first = Parts(tmp_path / "labels", COLUMNS, new=True, replace=False)
    for number in range(6):
        first.add(row(number))
    first.finish()
    then = Parts(tmp_path / "labels", COLUMNS, new=False, replace=False)
    for number in range(8):
        then.add(row(number))
    then.finish()
    assert pd.read_parquet(tmp_path / "labels").path.tolist() == [f"{number:03d}.mp4" for number in range(8)]


def test_what_another_work_has_left_is_neither_mixed_in_nor_overwritten_unasked(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    for number in range(2):
        old = Parts(folder, COLUMNS, new=True, replace=number > 0)
        for each in range(9 - 4 * number):
            old.add(row(each))
        old.finish()
    assert len(names(folder)) == 2
    with pytest.raises(DataError, match=r"labels holds part-00000.parquet already; .* --fresh"):
        Parts(folder, COLUMNS, new=True, replace=False)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"labels holds thesis.txt already; choose another --out$"):
        Parts(folder, COLUMNS, new=True, replace=True)
    assert names(folder) == ["part-00000.parquet", "part-00001.parquet", "thesis.txt"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file")
    with pytest.raises(DataError, match=r"labels: cannot be written \(File exists\)"):
        Parts(tmp_path / "labels", COLUMNS, new=True, replace=True)
