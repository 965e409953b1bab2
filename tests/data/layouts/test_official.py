"""UCF101, HMDB51, UCF11 and KTH: small copies of each, and the published lists themselves."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.config import DataConfig
from pipeline.data.layouts import Entry, Listing, discover
from pipeline.data.splits import assign
from pipeline.errors import ConfigError

UCF_TRAIN = "Bow/v_Bow_g08_c01.avi 1\nBow/v_Bow_g09_c01.avi 1\nDive/v_Dive_g08_c01.avi 2\n"
UCF_TEST = "Bow/v_Bow_g01_c01.avi\r\nDive/v_Dive_g01_c01.avi\r\n\r\n"
UCF_FILES = ("Bow/v_Bow_g08_c01.avi", "Bow/v_Bow_g09_c01.avi", "Bow/v_Bow_g01_c01.avi", "Dive/v_Dive_g08_c01.avi")


def ucf(place: Any, where: str = "../ucfTrainTestlist") -> None:
    place.write(f"{where}/trainlist01.txt", UCF_TRAIN)
    place.write(f"{where}/testlist01.txt", UCF_TEST)
    place.touch(*UCF_FILES, "Dive/v_Dive_g01_c01.mp4")


@pytest.mark.parametrize("where", ["../ucfTrainTestlist", "ucfTrainTestlist", "..", "."])
def test_ucf101_is_recognised_by_names_and_lists(place: Any, where: str) -> None:
    ucf(place, where)
    listing = place.listing()
    assert listing.kind == "ucf101" and listing.notes == listing.unused == []
    assert place.rows() == [
        ("Bow/v_Bow_g08_c01.avi", "Bow", "08", "train", None, None),
        ("Bow/v_Bow_g09_c01.avi", "Bow", "09", "train", None, None),
        ("Dive/v_Dive_g08_c01.avi", "Dive", "08", "train", None, None),
        ("Bow/v_Bow_g01_c01.avi", "Bow", "01", "test", None, None),
        ("Dive/v_Dive_g01_c01.mp4", "Dive", "01", "test", None, None),  # converted, and found by its name
    ]


def test_ucf101_without_its_lists_is_folders_with_groups(place: Any) -> None:
    place.touch(*UCF_FILES)
    assert place.listing().kind == "folders"
    assert [row[2:4] for row in place.rows()] == [("01", None), ("08", None), ("09", None), ("08", None)]
    assert "trainlist01.txt of UCF101" in place.failure(layout="ucf101")


def test_ucf101s_lists_with_other_names_are_not_passed_over_silently(place: Any) -> None:
    ucf(place, "ucfTrainTestlist")
    place.touch("Bow/holiday.avi")
    assert "set data.layout ucf101, or folders" in place.failure()
    assert place.listing(layout="folders").kind == "folders"
    listing = place.listing(layout="ucf101")
    assert (listing.entries[-1].label, listing.entries[-1].split) == ("Bow", None)
    assert "1 clips are in no list of split 1: Bow/holiday.avi" in listing.notes


def test_other_data_beside_ucf101s_lists(place: Any) -> None:
    """A folder of datasets: the lists of one say nothing about the others."""
    place.write("../ucfTrainTestlist/trainlist01.txt", UCF_TRAIN)
    place.touch("a/1.mp4", "b/2.mp4")
    assert place.listing().kind == "folders"


def test_missing_files_stay_and_absent_classes_go(place: Any) -> None:
    ucf(place)
    place.write("../ucfTrainTestlist/trainlist01.txt", UCF_TRAIN + "Ski/v_Ski_g09_c01.avi 3\n")
    (place.root / "Bow/v_Bow_g09_c01.avi").unlink()
    listing = place.listing()
    assert ("Bow/v_Bow_g09_c01.avi", "Bow") in [row[:2] for row in place.rows()]
    assert {entry.label for entry in listing.entries} == {"Bow", "Dive"}
    assert "1 classes of" in listing.notes[0] and "Ski" in listing.notes[0]
    assert "1 clips that" in listing.notes[1] and "Bow/v_Bow_g09_c01.avi" in listing.notes[1]


def test_lists_that_cannot_be(place: Any) -> None:
    ucf(place)
    place.write("../ucfTrainTestlist/testlist01.txt", UCF_TEST + "Bow/v_Bow_g08_c01.avi\n")
    assert "listed twice (train and test)" in place.failure()
    place.write("../ucfTrainTestlist/testlist01.txt", "nonsense\n")
    assert "testlist01.txt, line 1: 'nonsense'" in place.failure()
    (place.root / "../ucfTrainTestlist/testlist01.txt").unlink()
    assert "testlist01.txt does not exist" in place.failure()
    assert "annotations" in place.failure(annotations="nowhere")
    with pytest.raises(ConfigError, match="splits 1, 2 and 3"):
        place.listing(layout="ucf101", official_split=4)


def test_one_name_in_two_places(place: Any) -> None:
    ucf(place)
    place.touch("Dive/copy/v_Dive_g08_c01.avi")
    assert place.rows()[2][0] == "Dive/v_Dive_g08_c01.avi"  # the one in its class's folder
    place.touch("Dive/v_Dive_g08_c01.mp4")
    assert "have one name" in place.failure()


def test_groups_can_be_chosen_against_the_layout(place: Any) -> None:
    ucf(place)
    assert {row[2] for row in place.rows(group_pattern="none")} == {None}
    assert {row[2] for row in place.rows(group_pattern=r"(g\d+)")} == {"g01", "g08", "g09"}


HMDB = {
    "cartwheel": "Film_A_cartwheel_f_1.avi 1 \nFilm_B_cartwheel_f_0.avi 2 \nFilm_C_cartwheel_u_2.avi 0 \n",
    "pour": "Film_B_pour_f_1.avi 1 \n(Rad)[x];!_pour_f_1.avi 2 \n",
}


def hmdb(place: Any, where: str = "../testTrainMulti_7030_splits") -> None:
    for label, lines in HMDB.items():
        place.write(f"{where}/{label}_test_split1.txt", lines)
        place.touch(*(f"{label}/{line.split()[0]}" for line in lines.splitlines()))


@pytest.mark.parametrize("where", ["../testTrainMulti_7030_splits", "testTrainMulti_7030_splits", ".."])
def test_hmdb51_is_recognised_by_its_split_files(place: Any, where: str) -> None:
    hmdb(place, where)
    listing = place.listing()
    assert listing.kind == "hmdb51"
    assert place.rows() == [
        ("cartwheel/Film_A_cartwheel_f_1.avi", "cartwheel", "Film_A", "train", None, None),
        ("cartwheel/Film_B_cartwheel_f_0.avi", "cartwheel", "Film_B (test)", "test", None, None),
        ("pour/Film_B_pour_f_1.avi", "pour", "Film_B (train)", "train", None, None),
        ("pour/(Rad)[x];!_pour_f_1.avi", "pour", "(Rad)[x];!", "test", None, None),
    ]
    assert listing.unused == ["cartwheel/Film_C_cartwheel_u_2.avi"]
    assert listing.notes == [
        "1 clips are in neither part of HMDB51's split 1 and are left out",
        "the official split has clips of 1 films in train and in test: Film_B",
    ]


def test_hmdb51s_lists_beside_other_folders(place: Any) -> None:
    hmdb(place, "testTrainMulti_7030_splits")
    place.touch("extra/x.avi")
    assert "set data.layout hmdb51" in place.failure()
    listing = place.listing(layout="hmdb51")
    assert "extra/x.avi" in listing.unused
    assert "1 clips are not in HMDB51's lists and are left out" in listing.notes
    place.write("testTrainMulti_7030_splits/pour_test_split1.txt", "Film_B_pour_f_1.avi 3\n")
    assert "pour_test_split1.txt, line 1" in place.failure(layout="hmdb51")


def test_ucf11(place: Any) -> None:
    for label, short in (("basketball", "shooting"), ("walking", "walk_dog")):
        for group in (1, 2):
            place.touch(f"{label}/v_{short}_0{group}/v_{short}_0{group}_01.mpg")
        place.touch(f"{label}/Annotation/v_{short}_01_01.xgtf")
    listing = place.listing()
    assert listing.kind == "ucf11" and len(listing.ignored) == 2
    assert [entry.group for entry in listing.entries] == [
        "basketball/v_shooting_01", "basketball/v_shooting_02", "walking/v_walk_dog_01", "walking/v_walk_dog_02",
    ]  # fmt: skip
    place.touch("walking/other.mpg")
    assert "walking/other.mpg is in no folder such as" in place.failure()


def test_ucf11_unpacked_without_its_folders(place: Any) -> None:
    place.touch("basketball/v_shooting_01_01.mpg", "walking/v_walk_dog_12_01.mpg")
    assert [row[2] for row in place.rows(layout="ucf11")] == ["basketball/v_shooting_01", "walking/v_walk_dog_12"]


SEQUENCES = """Training:    person11, 12, 13, 14, 15, 16, 17, 18

person11_boxing_d1\t\tframes\t1-95, 96-185
person19_jogging_d2\tframes\t10-20,
person02_boxing_d1 frames 1-50
person13_handclapping_d3\t*missing*
"""


def kth(place: Any) -> None:
    place.touch("boxing/person11_boxing_d1_uncomp.avi", "jogging/person19_jogging_d2_uncomp.avi")


def test_kth_without_its_sequences(place: Any) -> None:
    kth(place)
    place.touch("boxing/person02_boxing_d1_uncomp.avi")
    listing = place.listing()
    assert listing.kind == "kth" and "no 00sequences.txt" in listing.notes[0]
    assert place.rows() == [
        ("boxing/person02_boxing_d1_uncomp.avi", "boxing", "person02", "test", None, None),
        ("boxing/person11_boxing_d1_uncomp.avi", "boxing", "person11", "train", None, None),
        ("jogging/person19_jogging_d2_uncomp.avi", "jogging", "person19", "val", None, None),
    ]


def test_kths_sequences_are_clips(place: Any) -> None:
    kth(place)
    place.write("../00sequences.txt", SEQUENCES)
    rows = place.rows()
    assert [row[:4] for row in rows] == [
        ("boxing/person11_boxing_d1_uncomp.avi", "boxing", "person11", "train"),
        ("boxing/person11_boxing_d1_uncomp.avi", "boxing", "person11", "train"),
        ("jogging/person19_jogging_d2_uncomp.avi", "jogging", "person19", "val"),
        ("boxing/person02_boxing_d1_uncomp.avi", "boxing", "person02", "test"),  # not here: it stays, and counts
    ]
    times = [index / 25 for index in range(200)]
    inside = [[n for n, t in enumerate(times, 1) if row[4] <= t < row[5]] for row in rows[:3]]
    assert inside == [list(range(1, 96)), list(range(96, 186)), list(range(10, 21))]
    closed = [[n for n, t in enumerate(times, 1) if row[4] <= t <= row[5]] for row in rows[:3]]
    assert closed == inside  # the limits lie between frames
    place.touch("boxing/person03_boxing_d1_uncomp.avi")
    assert place.listing().unused == ["boxing/person03_boxing_d1_uncomp.avi"]


@pytest.mark.parametrize("ranges", ["0-5", "7-5", "a-b"])
def test_sequences_that_cannot_be(place: Any, ranges: str) -> None:
    kth(place)
    place.write("00sequences.txt", f"person11_boxing_d1 frames 1-2, {ranges}\n")
    assert f"line 1: '{ranges}'" in place.failure()


def test_every_person_of_kth_is_in_one_split(place: Any) -> None:
    place.touch(*(f"all/person{n:02d}_{label}_d1_uncomp.avi" for n in range(1, 26) for label in ("boxing", "running")))
    listing = place.listing()
    assert Counter(entry.split for entry in listing.entries) == {"train": 16, "val": 16, "test": 18}
    assert {entry.label for entry in listing.entries} == {"boxing", "running"}


def test_annotations_of_no_layout_are_not_passed_over(place: Any) -> None:
    place.touch("a/1.mp4", "b/2.mp4")
    place.write("../notes/train.csv", "x\n")
    assert "set data.layout" in place.failure(annotations=str(place.root.parent / "notes"))


# The published lists, over empty files of their names.


def published(data_root: Path, root: Path, folder: str, names: list[str], **options: Any) -> Listing:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    annotations = str(data_root / "official_splits" / folder)
    return discover(DataConfig(root=str(root), annotations=annotations, **options))


def frame_of(entries: list[Entry]) -> pd.DataFrame:
    rows = [(e.path, e.label, e.group, e.split, "") for e in entries]
    return pd.DataFrame(rows, columns=["path", "label", "group", "split", "digest"])


def check_assigned(listing: Listing, data: DataConfig) -> pd.DataFrame:
    """The official parts stay as published, and validation shares no group with training."""
    table = assign(frame_of(listing.entries), data)
    given = pd.Series([entry.split for entry in listing.entries])
    assert set(table["split"][given == "train"]) == {"train", "val"}
    assert set(table["split"][given == "test"]) == {"test"}
    assert (table.groupby("unit")["split"].nunique() == 1).all()
    assert table[table["split"] == "val"]["label"].nunique() == table["label"].nunique()
    return table


@pytest.mark.parametrize(("number", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_the_published_lists_of_ucf101(data_root: Path, tmp_path: Path, number: int, train: int, test: int) -> None:
    lists = data_root / "official_splits" / "ucfTrainTestlist"
    names = [line.split()[0] for name in ("train", "test") for line in (lists / f"{name}list01.txt").open()]
    listing = published(data_root, tmp_path, "ucfTrainTestlist", names, official_split=number)
    assert (listing.kind, listing.notes, listing.unused, listing.ignored) == ("ucf101", [], [], [])
    assert Counter(entry.split for entry in listing.entries) == {"train": train, "test": test}
    classes = [line.split()[1] for line in (lists / "classInd.txt").open() if line.strip()]
    assert sorted({entry.label for entry in listing.entries}) == sorted(classes) and len(classes) == 101
    assert all(os.path.exists(entry.path) for entry in listing.entries[::100])
    check_assigned(listing, DataConfig(val=0.15))


@pytest.mark.parametrize(("number", "films"), [(1, 134), (2, 150), (3, 144)])
def test_the_published_lists_of_hmdb51(data_root: Path, tmp_path: Path, number: int, films: int) -> None:
    lists = data_root / "official_splits" / "hmdb51"
    names = []
    for path in lists.glob("*_test_split1.txt"):
        label = path.name.removesuffix("_test_split1.txt")
        names += [f"{label}/{line.rsplit(None, 1)[0]}" for line in path.open(newline="") if line.strip()]
    listing = published(data_root, tmp_path, "hmdb51", names, official_split=number)
    assert listing.kind == "hmdb51"
    assert Counter(entry.split for entry in listing.entries) == {"train": 3570, "test": 1530}
    assert len(listing.unused) == 1666 and listing.notes[0].startswith("1666 clips are in neither part")
    assert f"clips of {films} films in train and in test" in listing.notes[1] and len(listing.notes) == 2
    assert len({entry.label for entry in listing.entries}) == 51
    assert all(entry.group for entry in listing.entries)
    check_assigned(listing, DataConfig(val=0.15))
