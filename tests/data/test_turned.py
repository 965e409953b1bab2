"""Training views that are mirrored or played backwards: the label is always that of what is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AugmentationConfig, DifferenceConfig, FlowConfig, VideoConfig
from pipeline.data.batches import ClipLoader
from pipeline.data.clip_file import ClipFile, Turn
from pipeline.data.clips import Plan, load_clip, moments
from pipeline.data.features import feature_key
from pipeline.data.stream import decoding_pool
from pipeline.data.targets import UNLABELLED
from pipeline.data.turned import exchanged, seen_as, turn_of, with_turned
from pipeline.errors import ConfigError
from pipeline.stages.checks import check_task
from pipeline.stages.feed import sources_for
from pipeline.stages.ingest import ingest
from pipeline.stages.resume import TrainingState
from pipeline.stages.start import begin_model
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

CLASSES = ["down", "left", "right", "still", "up"]
SIDEWAYS, BACKWARDS = [["left", "right"]], [["left", "right"], ["down", "up"]]
BOTH = AugmentationConfig(
    crop=0.9, flip=0.5, flip_labels=SIDEWAYS, reverse=0.5, reverse_labels=BACKWARDS, brightness=0, saturation=0
)
WAYS = {"left": (0, -3), "right": (0, 3), "up": (-3, 0), "down": (3, 0), "still": (0, 0)}
"""Rows and columns per frame."""
views = st.integers(0, 2**32 - 1)


def write_clip(path: Path, way: str, frames: int = 12) -> str:
    """A bright square on grey that moves, without loss."""
    film = np.full((frames, 64, 64, 3), 90, dtype=np.uint8)
    for index, frame in enumerate(film):
        top, left = (28 + round(step * (index - frames / 2)) for step in WAYS[way])
        frame[top : top + 8, left : left + 8] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(str(path), film, 10.0)
    return str(path)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each way a square moves, with two clips of different length."""
    root = tmp_path_factory.mktemp("turned")
    for way in CLASSES:
        for frames in (11, 12):
            write_clip(root / way / f"{frames}.mkv", way, frames)
    return root


def files_of(root: Path, augmentation: AugmentationConfig) -> list[ClipFile]:
    paths = sorted(root.glob("*/*.mkv"))
    files = [ClipFile(str(path), CLASSES.index(path.parent.name), probe(str(path)).times, 1.2) for path in paths]
    return with_turned(files, augmentation, CLASSES)


def way_of(frames: np.ndarray) -> str:
    """Which way the bright square of frames (T, 3, S, S) moves."""
    bright = frames.mean(1) > 170
    rows, columns = ([float(np.nonzero(frame)[axis].mean()) for frame in (bright[0], bright[-1])] for axis in (0, 1))
    down, right = rows[1] - rows[0], columns[1] - columns[0]
    if max(abs(down), abs(right)) < 2:
        return "still"
    if abs(down) > abs(right):
        return "down" if down > 0 else "up"
    return "right" if right > 0 else "left"


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3))
def test_exchanging_twice_changes_nothing(labels: dict[str, str]) -> None:
    pairs = [[first, second] for first, second in labels.items()]
    if len(set(labels.values())) < len(labels):
        with pytest.raises(ConfigError, match="twice"):
            AugmentationConfig(flip_labels=pairs)
        return
    names = list("abcdxyz")
    order = exchanged(AugmentationConfig(flip_labels=pairs).flip_labels, names, "option")
    assert [order[number] for number in order] == list(range(len(names)))
    assert all(names[order[names.index(first)]] == second for first, second in labels.items())
    assert sum(number != place for place, number in enumerate(order)) == 2 * len(labels)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([["left", "left"]], "names 'left' twice"),
        ([["left", "right"], ["right", "left"]], "names 'left' twice"),
        ([["a", "b"], ["c", "b"]], "names 'b' twice"),
        ([["a", "b", "c"]], "is a list of pairs"),
        ([["a"]], "is a list of pairs"),
    ],
)
def test_a_class_has_one_partner(pairs: list[list[str]], says: str) -> None:
    for option in ("flip_labels", "reverse_labels"):
        with pytest.raises(ConfigError, match=f"augmentation.{option} {says}"):
            AugmentationConfig(**{option: pairs})  # type: ignore[arg-type]


def test_a_class_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        ConfigError, match=r"augmentation\.reverse_labels: there is no class 'lift'; the classes are do"
    ):
        with_turned([], AugmentationConfig(reverse_labels=[["lift", "up"]]), CLASSES)


@given(views)
def test_an_evaluation_is_never_turned_and_nothing_is_without_being_asked_for(view: int) -> None:
    assert turn_of(None, replace(BOTH, flip=1, reverse=1)) == Turn()
    assert turn_of(view, AugmentationConfig(flip=1.0)) == Turn()  # drawn elsewhere, as it changes no label
    assert turn_of(view, replace(BOTH, flip=0, reverse=0)) == Turn()
    assert turn_of(view, replace(BOTH, flip=1, reverse=1)) == Turn(True, True)
    assert turn_of(view, BOTH) == turn_of(view, BOTH)


def test_turns_are_as_frequent_as_asked_for_and_independent() -> None:
    turns = [turn_of(view, replace(BOTH, flip=0.3, reverse=0.6)) for view in range(4000)]
    shares = {turn: turns.count(turn) / len(turns) for turn in set(turns)}
    wanted = {Turn(): 0.28, Turn(True, False): 0.12, Turn(False, True): 0.42, Turn(True, True): 0.18}
    assert shares == pytest.approx(wanted, abs=0.04)


def test_what_has_no_class_stays_without() -> None:
    files = [ClipFile("a", UNLABELLED), ClipFile("b", 0.5), ClipFile("c", CLASSES.index("still"))]
    for file in with_turned(files, BOTH, CLASSES):
        assert file.turned == {}
        assert all(seen_as(file, view, BOTH) == file.target for view in range(20))


@pytest.mark.parametrize("streams", ["rgb", "difference", "flow", "rgb+difference+flow"])
@pytest.mark.parametrize("sampling", ["uniform", "rate"])
def test_backwards_is_what_a_file_of_the_frames_in_reverse_gives(
    moving: Path, tmp_path: Path, streams: str, sampling: Any
) -> None:
    """To the last number, in every stream, and for a segment of a file as well."""
    path = str(moving / "left" / "12.mkv")
    times, other = probe(path).times, str(tmp_path / "reversed.mkv")
    write_video(other, np.ascontiguousarray(read_frames(path, np.arange(12), times).frames[::-1]), 10.0)
    video = VideoConfig(streams=streams, frames=5, size=24, sampling=sampling, fps=5.0)
    change = DifferenceConfig("image", size=24)
    turning = Plan(video, FlowConfig(size=48, grid=3), replace(BOTH, flip=0, reverse=1), difference=change)
    plain = replace(turning, augmentation=replace(turning.augmentation, reverse=0))
    for seed in range(4):
        ours = load_clip(path, times, turning, seed)
        theirs = load_clip(other, probe(other).times, plain, seed)
        assert list(ours.inputs) == streams.split("+")
        for name, found in ours.inputs.items():
            np.testing.assert_allclose(found, theirs.inputs[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.times, theirs.times, atol=1e-9)
        np.testing.assert_array_equal(ours.times, moments(times, video, seed, turning.augmentation))
        part = load_clip(path, times[3:10], turning, seed, first=3)
        same = load_clip(other, probe(other).times[2:9], plain, seed, first=2)
        for name, found in part.inputs.items():
            np.testing.assert_allclose(found, same.inputs[name], rtol=1e-4, atol=1e-5)


def test_a_mirror_image_that_changes_labels_is_that_of_the_same_crop(moving: Path) -> None:
    path = str(moving / "left" / "12.mkv")
    video = VideoConfig(frames=5, size=24)
    mirrored = Plan(video, FlowConfig(), replace(BOTH, flip=1, reverse=0, crop=0.5))
    plain = replace(mirrored, augmentation=replace(mirrored.augmentation, flip=0))
    for seed in range(4):
        ours, theirs = (load_clip(path, probe(path).times, plan, seed).inputs["rgb"] for plan in (mirrored, plain))
        np.testing.assert_array_equal(ours, theirs[..., ::-1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_labelled_by_what_its_frames_show(moving: Path, workers: int) -> None:
    plan = Plan(VideoConfig(frames=6, size=32), FlowConfig(), BOTH)
    files = files_of(moving, BOTH)
    files.insert(3, ClipFile(str(moving / "missing.mkv"), 0, files[0].times))  # one that fails must shift nothing
    requests = [(index, view) for view in (None, *range(8)) for index in range(len(files))]
    own = {(index, view): CLASSES[int(files[index].target)] for index, view in requests}  # type: ignore[arg-type]
    shown = []
    with decoding_pool(plan, workers) as pool:
        for batch in ClipLoader(files, plan, 4, pool).batches(requests):
            for frames, length, target in zip(batch.inputs["rgb"], batch.lengths, batch.targets, strict=True):
                shown.append(CLASSES[int(target)])
                assert way_of(frames[: int(length)].numpy()) == shown[-1]
    read = [label for (index, _), label in own.items() if index != 3]
    assert len(shown) == len(read)
    assert shown[:10] == read[:10]  # evaluation views
    changed = {(before, after) for before, after in zip(read, shown, strict=True) if before != after}
    assert changed == {("left", "right"), ("right", "left"), ("up", "down"), ("down", "up")}


def test_stored_features_are_labelled_by_what_they_show(
    moving: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A training on optical flow: the mean velocity of each stored view says which way it goes."""
    monkeypatch.setenv("VIDEO_LSTM_CACHE", str(tmp_path))
    config = make_config(
        data__root=str(moving), data__val=0.0, data__test=0.0, augmentation=replace(BOTH, views=6),
        video__streams="flow", video__frames=6, flow=FlowConfig(size=48, grid=1),
    )  # fmt: skip
    data = ingest(config.data)
    model, _ = begin_model(config, data, None)
    source, _ = sources_for(config, data, model, TrainingState({}, ""), torch.device("cpu"))
    order = [index for index in range(len(source.labels)) for _ in range(12)]
    found = set()
    for batch in source.batches(0, order):
        for flow, target in zip(batch.inputs["flow"], batch.targets, strict=True):
            right, down = (float(flow[1:, axis].mean()) for axis in (0, 1))
            label = data.classes[int(target)]
            found.add(label)
            if label == "still":
                assert max(abs(right), abs(down)) < 1e-3
            else:
                step = WAYS[label]
                moved = (down * step[0], right * step[1])
                assert sum(moved) > 0.1, label
    assert found == set(CLASSES)


def test_features_without_turns_keep_their_keys() -> None:
    """Stores that were filled before there were turns stay of use, and pairs of names are no part of a feature."""
    plan = Plan(VideoConfig(), FlowConfig())

    def key(**changes: Any) -> str:
        return feature_key("clip", replace(plan, augmentation=replace(plan.augmentation, **changes)), "encoder", 7)

    assert key() == key(reverse_labels=[["a", "b"]])
    assert key(flip=0.5, flip_labels=[["a", "b"]]) == key(flip=0.5, flip_labels=[["c", "d"]])
    assert len({key(flip=0.5), key(flip=0.5, flip_labels=[["a", "b"]]), key(flip=0.5, reverse=0.5)}) == 3


@pytest.mark.parametrize("changes", [{"flip_labels": SIDEWAYS}, {"reverse": 0.5}])
@pytest.mark.parametrize("task", ["frame_label", "regression", "frame_regression"])
def test_turns_that_change_a_class_are_for_clips_that_have_one(
    make_config: Any, task: str, changes: dict[str, Any]
) -> None:
    config = make_config(task=task, augmentation=AugmentationConfig(**changes))
    with pytest.raises(ConfigError, match=f"augmentation.{next(iter(changes))} changes what class"):
        check_task(config)
