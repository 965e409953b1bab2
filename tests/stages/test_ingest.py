from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Config, DataConfig, TrackingConfig
from pipeline.data import catalog
from pipeline.errors import DataError
from pipeline.stages.ingest import Ingested, ingest
from pipeline.stages.train import train
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video


@pytest.fixture(scope="module")
def data(tiny_clips: Path) -> Ingested:
    return ingest(DataConfig(root=str(tiny_clips), val=0.2, test=0.4))


def test_every_file_is_counted_and_a_bad_one_has_its_reason(data: Ingested, tiny_clips: Path) -> None:
    assert data.summary == {"files": 35, "ok": 30, "failed": 5, "reasons": {"not a video": 5}}
    assert set(data.table["path"]) == {str(path) for path in tiny_clips.rglob("*.*")}
    bad = data.table[data.table["status"] != "ok"]
    assert all("c09" in path for path in bad["path"])
    assert [(item["path"], item["reason"]) for item in data.failed()] == [(path, "not a video") for path in bad["path"]]


def test_classes_are_sorted_and_labels_are_positions(data: Ingested) -> None:
    assert data.classes == ["blue", "green", "red"]
    for split in ("train", "val", "test"):
        for file in data.files(split):
            assert Path(file.path).parent.name == data.classes[file.target]


def test_a_split_holds_whole_groups_and_its_own_failures(data: Ingested) -> None:
    groups = [{Path(file.path).name.split("_")[2] for file in data.files(name)} for name in ("train", "val", "test")]
    assert [len(part) for part in groups] == [2, 1, 2]
    assert len(set.union(*groups)) == 5
    assert [len(data.files(name)) for name in ("train", "val", "test")] == [12, 6, 12]
    assert [len(data.failed(name)) for name in ("train", "val", "test")] == [2, 1, 2]


def test_files_carry_what_was_found_when_they_were_decoded(data: Ingested) -> None:
    file = data.files("test")[0]
    row = data.table[data.table["path"] == file.path].iloc[0]
    assert file.times is not None and len(file.times) == row["frames"] and file.digest == row["clip"]
    assert file.duration == row["duration"] > 0


def test_digests_follow_contents_and_labels_not_the_folder(data: Ingested, tiny_clips: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_clips, moved)
    again = ingest(DataConfig(root=str(moved), val=0.2, test=0.4))
    assert (again.digest, again.split_digest) == (data.digest, data.split_digest)
    (moved / "red").rename(moved / "scarlet")
    assert ingest(DataConfig(root=str(moved), val=0.2, test=0.4)).digest != data.digest


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_catalog_is_written(data: Ingested, tiny_clips: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"catalog{suffix}"
    ingest(DataConfig(root=str(tiny_clips), val=0.2, test=0.4), path)
    pd.testing.assert_series_equal(catalog.read(path)["split"], data.table["split"])


def test_another_suffix_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.parquet"):
        ingest(DataConfig(root=str(tmp_path / "is not even there")), tmp_path / "catalog.xlsx")


def test_the_screen_names_a_few_failures_and_what_was_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        write_video(str(tmp_path / label / "good.avi"), np.zeros((2, 16, 16, 3), dtype=np.uint8) + ord(label), 10.0)
        for number in range(4):
            (tmp_path / label / f"bad{number}.mp4").write_bytes(b"x" * 50 + bytes([number, ord(label)]))
    (tmp_path / "a" / "notes.txt").write_text("no clip")
    ingest(DataConfig(root=str(tmp_path), val=0, test=0.5))
    written = capsys.readouterr()
    assert written.out == ""
    assert "8 of 10 files give no clip" in written.err and "... and 3 more" in written.err
    assert "1 files that are no clip of a class were passed over" in written.err


def test_no_folder_an_empty_one_and_one_that_decodes_to_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        ingest(DataConfig(root=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="class folders"):
        ingest(DataConfig(root=str(tmp_path)))
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    with pytest.raises(DataError, match="no video and no image"):
        ingest(DataConfig(root=str(tmp_path)))
    for label in ("a", "b"):
        (tmp_path / label / "clip.mp4").write_bytes(b"nothing to see " + label.encode())
    with pytest.raises(DataError, match="none of the 2 files can be decoded"):
        ingest(DataConfig(root=str(tmp_path)))


def test_one_class_is_enough_to_be_scored_and_not_to_learn_from(tiny_clips: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_clips / "red", tmp_path / "data/red")
    with pytest.raises(DataError, match="at least two"):
        ingest(DataConfig(root=str(tmp_path / "data")))
    assert ingest(DataConfig(root=str(tmp_path / "data")), split=False).classes == ["red"]


def test_bug_a_copy_encoded_again_on_both_sides_of_a_split(data_root: Path, tmp_path: Path) -> None:
    """Byte-equal copies were kept together; the same clip at another size and quality was not seen."""
    clips = sorted((data_root / "swipes").rglob("*.mp4"))[:4]
    lines = ["path,label,split"]
    for number, path in enumerate(clips):
        lines.append(f"{path},{'ab'[number % 2]},train")
    copied = read_frames(str(clips[0]), np.arange(probe(str(clips[0])).frames)).frames[:, ::2, ::2]
    height, width = (copied.shape[1] // 2 * 2, copied.shape[2] // 2 * 2)
    write_video(str(tmp_path / "copy.avi"), copied[:, :height, :width], 25.0, "MJPG")
    lines += [f"{tmp_path / 'copy.avi'},a,test", f"{clips[3]},b,train"]
    (tmp_path / "clips.csv").write_text("\n".join(dict.fromkeys(lines)))
    config = DataConfig(root=str(tmp_path / "clips.csv"), val=0.0)
    leaks = ingest(config).leaks
    assert [{leak.path, leak.other} for leak in leaks] == [{str(clips[0]), str(tmp_path / "copy.avi")}]
    assert {leaks[0].split, leaks[0].other_split} == {"train", "test"}
    with pytest.raises(DataError, match=r"near-duplicates .* --data.allow_leak true"):
        train(Config(data=config, tracking=TrackingConfig(enabled=False)), tmp_path / "run")


def test_one_group_in_two_given_splits_is_refused_unless_told(tiny_clips: Path, tmp_path: Path) -> None:
    paths = sorted(path for path in tiny_clips.rglob("*.*") if "c09" not in path.name)[:6]
    rows = [f"{path},{'ab'[n % 2]},same,{('train', 'test')[n % 2]}" for n, path in enumerate(paths)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,group,split", *rows]))
    with pytest.raises(DataError, match=r"two splits .*--data.allow_leak true"):
        ingest(DataConfig(root=str(tmp_path), val=0.0))
    table = ingest(DataConfig(root=str(tmp_path), val=0.0, allow_leak=True)).table
    assert table["split"].tolist() == ["train", "test"] * 3
