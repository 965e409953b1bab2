"""Finding clips: class folders, lists, groups, and one clear line for everything that cannot work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config import DataConfig
from pipeline.data.layouts import Listing, discover
from pipeline.errors import ConfigError, DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root: Path, **options: str) -> Listing:
    return discover(DataConfig(root=str(root), **options))  # type: ignore[arg-type]


def rows(listing: Listing, root: Path) -> list[tuple[str, str]]:
    return [(os.path.relpath(entry.path, root), entry.label) for entry in listing.entries]


def failure(root: Path | None, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        discover(DataConfig(root=None if root is None else str(root), **options))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_class_folders(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "walk/b2.mp4",
        "walk/b10.MP4",
        "walk/deep/er/c.avi",
        "walk/still.jpg",
        "walk/frames/1.png",
        "walk/frames/2.png",
        "walk/mixed/1.png",
        "walk/mixed/x.avi",
        "walk/notes.txt",
        "run/a.webm",
        "run/._a.webm",
        "run/.hidden.mp4",
        ".git/x.mp4",
        "README.md",
    )
    listing = found(tmp_path)
    assert rows(listing, tmp_path) == [
        ("run/a.webm", "run"),
        ("walk/b2.mp4", "walk"),
        ("walk/b10.MP4", "walk"),
        ("walk/deep/er/c.avi", "walk"),
        ("walk/frames", "walk"),
        ("walk/mixed/1.png", "walk"),
        ("walk/mixed/x.avi", "walk"),
        ("walk/still.jpg", "walk"),
    ]
    assert sorted(listing.ignored) == ["README.md", "walk/notes.txt"]
    assert listing.kind == "folders"
    assert all(entry.group is None and entry.split is None for entry in listing.entries)


def test_images_in_a_class_folder_are_clips_of_one_frame(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    assert [path for path, _ in rows(found(tmp_path), tmp_path)] == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/a/1.mp4", "elsewhere/2.mp4")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/self").symlink_to(tmp_path / "data/a")
    assert rows(found(tmp_path / "data"), tmp_path / "data") == [("a/1.mp4", "a"), ("b/2.mp4", "b")]


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/1.mp4", "b/" + os.fsdecode(b"\xff.mp4"))
    listing = found(tmp_path)
    assert len(listing.entries) == 2 and len(listing.ignored) == 1
    listing.ignored[0].encode("utf-8")


def test_a_list(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(
        "\ufeffPath,label,group,split,extra\nx/1.mp4,a,g1,train,1\nx/2.mp4,b,,,2\nmissing.mp4,b,g2,test,3\n"
    )
    for root in (tmp_path, tmp_path / "clips.csv"):
        listing = found(root)
        assert listing.kind == "list"
        assert rows(listing, tmp_path) == [("x/1.mp4", "a"), ("x/2.mp4", "b"), ("missing.mp4", "b")]
        assert [entry.group for entry in listing.entries] == ["g1", None, "g2"]
        assert [entry.split for entry in listing.entries] == ["train", None, "test"]


def test_a_list_named_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("path,label\na_g1_c1.mp4,a\nb_g2_c1.mp4,b\n")
    listing = discover(DataConfig(root="mine.csv"))
    assert [entry.path for entry in listing.entries] == ["a_g1_c1.mp4", "b_g2_c1.mp4"]
    assert [entry.group for entry in listing.entries] == ["1", "2"]


def test_groups_by_known_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a/v_a_g01_c01.avi", "b/v_b_g02_c03.avi")
    assert [entry.group for entry in found(tmp_path).entries] == ["01", "02"]
    assert [entry.group for entry in found(tmp_path, group_pattern="none").entries] == [None, None]
    touch(tmp_path, "b/other.avi")
    assert [entry.group for entry in found(tmp_path).entries] == [None, None, None]


def test_groups_by_person(tmp_path: Path) -> None:
    touch(tmp_path, "a/person01_a_d1.avi", "b/person12_b_d1.avi")
    assert [entry.group for entry in found(tmp_path).entries] == ["01", "12"]


def test_groups_by_own_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a/set1/x.avi", "b/set2/y.avi", "b/other/z.avi")
    entries = found(tmp_path, group_pattern=r"/(set\d)/").entries
    assert [entry.group for entry in entries] == ["set1", None, "set2"]
    assert "matches no file" in failure(tmp_path, group_pattern=r"camera(\d)")


@pytest.mark.parametrize("pattern", ["(", "g\\d+"])
def test_a_pattern_that_cannot_work(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "a/1.mp4", "b/1.mp4")
    with pytest.raises(ConfigError, match="group_pattern"):
        found(tmp_path, group_pattern=pattern)


def test_an_explicit_column_wins(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,label,group\na_g1_c1.mp4,a,one\nb_g2_c1.mp4,b,two\n")
    for pattern in ("auto", r"g(\d)", "none"):
        assert [entry.group for entry in found(tmp_path, group_pattern=pattern).entries] == ["one", "two"]


def test_failures_of_folders(tmp_path: Path) -> None:
    assert "not set" in failure(None)
    assert "does not exist" in failure(tmp_path / "nowhere")
    assert "no class folders" in failure(tmp_path)
    touch(tmp_path, "a/readme.txt", "film.mp4")
    assert "no video" in failure(tmp_path)
    assert "is a file" in failure(tmp_path / "film.mp4")


def test_split_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.mp4", "test/b/1.mp4")
    assert [(entry.label, entry.split) for entry in found(tmp_path).entries] == [("b", "test"), ("a", "train")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\nx.mp4,a\n", "column path"),
        ("", "column path and label"),
        ("path,label\n", "no clips"),
        ("path,label\nx.mp4,a\n,b\n", "line 3: the path is empty"),
        ("path,label\nx.mp4\n", "line 2: the label is empty"),
        ("path,label,split\nx.mp4,a,train\ny.mp4,b,dev\n", "line 3: split 'dev'"),
        ("path,label\nx.mp4,a\nz.mp4,b\n./x.mp4,a\n", "line 4: ./x.mp4 is listed on line 2"),
    ],
)
def test_failures_of_lists(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "clips.csv").write_text(text)
    assert expected in failure(tmp_path)


def test_a_list_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    assert "UTF-8" in failure(tmp_path)
