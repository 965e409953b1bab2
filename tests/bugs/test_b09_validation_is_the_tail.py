"""B9: validation taken as the unshuffled tail of a class-ordered list (keras#597, keras-io#1019: 19.64%)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import DataConfig
from pipeline.data import catalog
from pipeline.data.layouts import discover
from pipeline.data.splits import assign, report


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_in_every_split_of_a_class_ordered_list(tmp_path: Path, seed: int) -> None:
    lines = [f"{label}/{index}.mp4,{label}" for label in ("a", "b", "c", "d", "e") for index in range(20)]
    (tmp_path / "clips.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    data = DataConfig(root=str(tmp_path), split_seed=seed)  # type: ignore[arg-type]
    frame = assign(catalog.build(discover(data).entries, cache=str(tmp_path / "cache")), data)
    for split, count in (("train", 13), ("val", 3), ("test", 4)):
        held = frame.loc[frame["split"] == split, "label"].value_counts()
        assert held.to_dict() == dict.fromkeys("abcde", count)
    assert frame["split"].tolist()[-20:] != ["val"] * 20


def test_the_class_histogram_is_reported(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,label,split\na.mp4,a,train\nb.mp4,b,train\nc.mp4,a,test\n")
    data = DataConfig(root=str(tmp_path), val=0.0)  # type: ignore[arg-type]
    frame = catalog.build(discover(data).entries, cache=str(tmp_path / "cache")).assign(status="ok")
    result = report(assign(frame, data))
    assert result["counts"]["test"] == {"a": 1, "b": 0}
    assert result["missing"] == {"test": ["b"]}
