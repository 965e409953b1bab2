"""No healthy file is called damaged: 456 real clips, our demo's."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.demo import write_demo
from pipeline.video.containers import read_structure
from pipeline.video.images import suffix
from pipeline.video.reader import probe


def test_real_clips_are_whole(data_root: Path) -> None:
    """The structure of all of them, and what decodes of every twelfth (all of them decode: takes 20 s)."""
    clips = sorted(
        path
        for name in ("ut_interaction", "wagon_state", "swipes")
        for path in (data_root / name).glob("*/*")
        if suffix(str(path)) in (".avi", ".mp4")
    )
    assert len(clips) == 456
    assert [str(path) for path in clips if read_structure(str(path)).damage] == []
    for path in clips[::12]:
        assert probe(str(path)).damage == "", path


def test_demo_clips_are_whole(tmp_path: Path) -> None:
    write_demo(str(tmp_path), groups=3)
    clips = [path for path in tmp_path.rglob("*") if suffix(str(path)) in (".avi", ".mp4", ".mkv", ".webm")]
    assert len(clips) == 24
    for path in clips:
        info = probe(str(path))
        assert (info.damage, info.marks) == ("", ()), path
