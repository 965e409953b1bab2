from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.config import VideoConfig
from pipeline.stages.target_notes import moved_by, target_notes


def test_what_moves_a_position_is_named(make_config: Any) -> None:
    (note,) = target_notes(make_config(task="regression"), [1.0])
    assert note.startswith("augmentation.crop 0.7 moves what training clips show")
    still = {"augmentation__crop": 1.0}
    assert target_notes(make_config(task="frame_regression", **still), [1.0]) == []
    turning = make_config(task="frame_regression", **still, augmentation__flip=0.5, augmentation__rotate=5.0)
    assert moved_by(turning) == ["augmentation.flip 0.5", "augmentation.rotate 5"]
    assert len(moved_by(replace(turning, encoder=replace(turning.encoder, frozen=True)))) == 2
    assert moved_by(make_config(task="regression", encoder__frozen=True, augmentation__views=1)) == []


def test_classes_are_not_spoken_of(make_config: Any) -> None:
    for task in ("label", "frame_label"):
        video = VideoConfig(sampling="rate", fps=2.0, frames=4)
        assert target_notes(make_config(task=task, augmentation__flip=0.5, video=video), [99.0]) == []


def test_windows_that_show_a_part_with_the_value_of_the_whole_are_noticed(make_config: Any) -> None:
    video = VideoConfig(sampling="rate", fps=2.0, frames=4)
    config = make_config(task="regression", augmentation__crop=1.0, video=video)
    assert target_notes(config, [1.0, 2.0]) == []
    (note,) = target_notes(config, [1.0, 2.5, 9.0])
    assert "2 of 3 training clips are longer than 2.0 s" in note and "video.frames" in note
    assert target_notes(replace(config, video=replace(video, sampling="uniform")), [9.0]) == []
    assert target_notes(replace(config, task="frame_regression"), [9.0]) == []  # its targets are cut with the window
