"""One search for datasets and for classification: what is a clip, what is passed over, what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.layouts import walk
from pipeline.stages.find import find_files


def clips(root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path, is_clip in walk(str(root)) if is_clip]


def test_natural_order_of_files_and_folders_together(place: Any) -> None:
    place.touch("b10.mp4", "b9/z.mp4", "b2.avi", "a.txt", ".hidden/x.mp4", "._b2.avi")
    assert clips(place.root) == ["b2.avi", "b9/z.mp4", "b10.mp4"]
    assert [path for path, is_clip in walk(str(place.root)) if not is_clip] == [str(place.root / "a.txt")]


def test_a_folder_called_like_a_video(place: Any) -> None:
    place.touch("images.mp4/1.jpg", "images.mp4/2.jpg", "films.mp4/x.mp4", "films.mp4/notes.txt", "empty.mp4/n.txt")
    assert clips(place.root) == ["films.mp4/x.mp4", "images.mp4"]
    assert find_files([str(place.root)]) == [str(place.root / name) for name in clips(place.root)]


def test_loops_of_links_end_and_a_folder_is_listed_once(place: Any) -> None:
    place.touch("a/1.mp4", "b/2.mp4")
    (place.root / "a" / "up").symlink_to(place.root)
    (place.root / "b" / "again").symlink_to(place.root / "a")
    (place.root / "self").symlink_to("self")
    (place.root / "b" / "gone.mp4").symlink_to("nowhere")
    assert clips(place.root) == ["a/1.mp4", "b/2.mp4", "b/gone.mp4"]


def test_links_that_multiply_do_not(place: Any) -> None:
    """Twelve folders that each link to all others: 12! ways through them, and one visit each."""
    names = [f"f{number}" for number in range(12)]
    place.touch(*(f"{name}/x.mp4" for name in names))
    for name in names:
        for other in names:
            (place.root / name / f"to_{other}").symlink_to(place.root / other)
    assert len(clips(place.root)) == 12


def test_a_folder_that_cannot_be_listed_does_not_disappear(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place.touch("a/1.mp4", "a/locked/2.mp4", "b/3.mp4")
    locked, real = str(place.root / "a" / "locked"), os.scandir

    def scandir(path: str) -> Any:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the tests may run as root, whom no permission stops
    assert clips(place.root) == ["a/1.mp4", "a/locked", "b/3.mp4"]
    assert find_files([str(place.root)]) == [str(place.root / name) for name in clips(place.root)]
    assert find_files([locked]) == [locked]
    assert ("a/locked", "a") in [row[:2] for row in place.rows()]


def test_images_are_one_clip_for_classify_and_one_each_in_a_class_folder(place: Any) -> None:
    place.touch("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/walk/1.jpg")
    assert find_files([str(place.root / "cat")]) == [str(place.root / "cat")]
    assert [row[0] for row in place.rows()] == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/walk"]


def test_names_that_are_not_utf8_are_found_where_a_table_can_show_them(place: Any) -> None:
    odd, inside = os.fsdecode(b"\xff.mp4"), os.fsdecode(b"\xfe") + "/2.mp4"
    place.touch("1.mp4", odd, inside)
    assert sorted(find_files([str(place.root)])) == sorted(str(place.root / name) for name in ("1.mp4", odd, inside))
    assert [path for path, is_clip in walk(str(place.root)) if is_clip] == [str(place.root / "1.mp4")]
