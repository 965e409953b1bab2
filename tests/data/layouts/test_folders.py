"""Folders of splits, FiftyOne's tree, and what lies beside."""

from __future__ import annotations

from typing import Any

import pytest


def test_split_folders(place: Any) -> None:
    place.touch("train/a/1.mp4", "train/b/2.mp4", "Validation/a/3.mp4", "test/b/deep/4.mp4", "test/b/x.txt", "read.me")
    for layout in ("auto", "splits", "fiftyone"):
        listing = place.listing(layout=layout)
        assert listing.kind == ("splits" if layout == "auto" else layout)
        assert place.rows(layout=layout) == [
            ("test/b/deep/4.mp4", "b", None, "test", None, None),
            ("train/a/1.mp4", "a", None, "train", None, None),
            ("train/b/2.mp4", "b", None, "train", None, None),
            ("Validation/a/3.mp4", "a", None, "val", None, None),
        ]
        assert sorted(listing.ignored) == ["read.me", "test/b/x.txt"]
        assert listing.unused == listing.notes == []


def test_groups_are_taken_from_names_in_split_folders_too(place: Any) -> None:
    place.touch("train/a/v_a_g01_c01.avi", "train/b/v_b_g02_c01.avi", "test/a/v_a_g03_c01.avi")
    assert [row[2] for row in place.rows()] == ["03", "01", "02"]


def test_a_test_folder_without_labels_is_named(place: Any) -> None:
    place.touch("train/a/1.mp4", "train/b/2.mp4", "test/3.mp4")
    listing = place.listing()
    assert [entry.split for entry in listing.entries] == ["train", "train"]
    assert listing.ignored == ["test/3.mp4"]
    assert "1 clips in" in listing.notes[0] and "outside every class folder" in listing.notes[0]


def test_clips_beside_class_folders_are_named(place: Any) -> None:
    place.touch("a/1.mp4", "b/2.mp4", "loose.mp4")
    listing = place.listing()
    assert listing.ignored == ["loose.mp4"] and "loose.mp4" in listing.notes[0]


def test_a_class_may_be_called_train(place: Any) -> None:
    place.touch("train/1.mp4", "plane/2.mp4", "car/3.mp4")
    assert [row[1] for row in place.rows()] == ["car", "plane", "train"]


def test_splits_beside_another_folder_of_clips_are_not_guessed(place: Any) -> None:
    place.touch("train/a/1.mp4", "test/b/2.mp4", "train/b/3.mp4", "extra/4.mp4", "lists/notes.txt")
    assert "extra with clips as well" in place.failure()
    listing = place.listing(layout="splits")
    assert listing.unused == ["extra/4.mp4"] and "extra is no split" in listing.notes[0]
    assert {entry.label for entry in place.listing(layout="folders").entries} == {"extra", "test", "train"}
    (place.root / "extra" / "4.mp4").unlink()
    assert place.listing().kind == "splits"


def test_two_folders_for_one_split(place: Any) -> None:
    place.touch("train/a/1.mp4", "val/b/2.mp4", "valid/a/3.mp4")
    assert "both val and valid" in place.failure()


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_fiftyone_leaves_out_what_has_no_label(place: Any, prefix: str) -> None:
    place.touch(f"{prefix}a/1.mp4", f"{prefix}b/2.mp4", f"{prefix}_unlabeled/3.mp4")
    if prefix:
        place.touch("test/a/4.mp4", "other/b/5.mp4")
    listing = place.listing(layout="fiftyone")
    assert {entry.label for entry in listing.entries} == {"a", "b"}
    assert f"{prefix}_unlabeled/3.mp4" in listing.unused and "no label" in " ".join(listing.notes)
    assert ("other/b/5.mp4" in listing.unused) == bool(prefix)
    if not prefix:
        assert place.listing().kind == "fiftyone"


def test_classes_one_level_deeper(place: Any) -> None:
    place.touch("UCF/a/1.mp4", "UCF/b/2.mp4")
    assert f"give {place.root}/UCF" in place.failure()


def test_a_pattern_that_fits_some_clips_says_how_many_it_does_not(place: Any) -> None:
    place.touch("a/cam1_x.mp4", "b/cam2_y.mp4", "b/other.mp4")
    listing = place.listing(group_pattern=r"(cam\d)")
    assert [entry.group for entry in listing.entries] == ["cam1", "cam2", None]
    assert "fits 2 of 3 clips" in listing.notes[0] and "b/other.mp4" in listing.notes[0]


def test_known_names_with_an_exception_say_that_no_groups_were_taken(place: Any) -> None:
    place.touch("a/v_a_g01_c01.avi", "b/v_b_g02_c01.avi", "b/other.avi")
    listing = place.listing()
    assert [entry.group for entry in listing.entries] == [None] * 3
    assert "1 of 3 clips do not fit" in listing.notes[0]
