"""The demo clips: real video files in several formats, of an object whose motion only the order of frames tells."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from pipeline.data.backdrop import background, look, photographs
from pipeline.data.layouts import LIST_NAME
from pipeline.data.scene import CLASSES, DIAMETER, Motion, add_grain, render, trajectory
from pipeline.data.tracks import TRACKS
from pipeline.errors import DataError
from pipeline.video.writer import write_video

VERSION = 1
"""Version of what is drawn; raise it when a clip would come out differently."""

Row = tuple[str, ...]
TRACKS_PER_GROUP = 2
TRACK_RATES = (10.0, 12.0, 12.5, 15.0, 24.0)
"""Frames per second of clips that last several seconds: low, for small files."""
POOL_FROM = 16
"""Groups from which several processes draw; fewer are done before those have started."""
MARK = "demo.json"
RATES = (10.0, 12.0, 12.5, 15.0, 15.0, 24.0, 25.0, 29.97)
SIZES = (
    (96, 72), (128, 96), (160, 120), (128, 72), (160, 90), (96, 96), (120, 120), (90, 120), (152, 100),
)  # fmt: skip
# WebM is rare because encoding it takes ten times as long as anything else here.
FORMATS = (
    *[(".mp4", "mp4v")] * 4, *[(".avi", "XVID")] * 3, *[(".avi", "MJPG")] * 2,
    (".mkv", "MJPG"), (".webm", "VP80"), (".webm", "VP90"),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """What the clips of one group have in common besides background and object, so that none tells their class.

    Attributes:
        name, split: such as "g001" and "train".
        suffix, codec, fps, count: the file's format, rate and number of frames.
        size: width and height in pixels.
        motion: how much it moves.
    """

    name: str
    split: str
    suffix: str
    codec: str
    fps: float
    count: int
    size: tuple[int, int]
    motion: Motion


def write_demo(
    folder: str,
    groups: int = 120,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
    task: str = "label",
) -> int:
    """Write the demo clips of a task and the list `folder/clips.csv`, whose columns `docs/tasks.md` explains.

    Task label: eight motions, `folder/<class>/<class>_gNNN_c01.<suffix>`. frame_label: phases of motion, regression:
    the number of turns, frame_regression: the horizontal position, each as `folder/clips/gNNN_cNN.<suffix>`.

    A folder that holds exactly this demo is left as it is; one where writing it was interrupted is completed.

    Args:
        folder: made where it is missing.
        groups: sources, each with `clips_per_group` clips; at least 3. Two thirds train, a fifth tests.
        seed: fixes every pixel (the bytes of .mkv and .webm files differ by random numbers in their header).
        progress: called with the number of clips just written.
        task: what the clips are to be learned for.

    Returns:
        Number of clips.

    Raises:
        DataError: the folder holds something else, or fewer than 3 groups are wanted.
        OSError: a file cannot be written.
    """
    if groups < 3:
        raise DataError(f"a demo of {groups} groups cannot be split; ask for at least 3")
    tick = progress or (lambda _: None)
    mark = {"demo": "video-lstm", "version": VERSION, "seed": seed, "groups": groups}
    if task != "label":
        mark["task"] = task
    plan = [_format(index, seed) for index in range(groups)]
    names = {clip for name, suffix, _ in plan for clip in _clip_names(task, name, suffix)}
    if _is_complete(folder, mark, names | {LIST_NAME, MARK}):
        tick(len(names))
        return len(names)
    for name in {os.path.dirname(clip) for clip in names}:
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    rows: list[Row] = []
    for written in _write_groups(folder, task, groups, seed):
        rows += written
        tick(clips_per_group(task))
    with open(os.path.join(folder, LIST_NAME), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", *(TRACKS[task][0] if task in TRACKS else ("label",)), "group", "split"))
        writer.writerows(sorted(rows) if task == "label" else rows)
    with open(os.path.join(folder, MARK), "w", encoding="utf-8") as file:
        json.dump(mark, file, indent=1)
    return len(names)


def clips_per_group(task: str) -> int:
    """How many clips show one background and one object."""
    return len(CLASSES) if task == "label" else TRACKS_PER_GROUP


def _clip_names(task: str, group: str, suffix: str) -> list[str]:
    """The clips of a group, below the demo's folder."""
    if task == "label":
        return [f"{label}/{label}_{group}_c01{suffix}" for label in CLASSES]
    return [f"clips/{group}_c{number:02d}{suffix}" for number in range(1, TRACKS_PER_GROUP + 1)]


def _write_groups(folder: str, task: str, groups: int, seed: int) -> Iterator[list[Row]]:
    """The rows of the list, group by group; several groups are drawn at a time where there are many."""
    workers = min(8, os.cpu_count() or 1) if groups >= POOL_FROM else 1
    if workers == 1:
        for index in range(groups):
            yield _write_group(folder, task, index, groups, seed)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        numbers = range(groups)
        yield from pool.map(
            _write_group, repeat(folder), repeat(task), numbers, repeat(groups), repeat(seed), chunksize=2
        )


def _write_group(folder: str, task: str, index: int, groups: int, seed: int) -> list[Row]:
    """Draw and write the clips of one group; their rows of the list."""
    group = _group(index, groups, seed)
    scene = np.random.default_rng([seed, index, 9])
    backdrop = background(photographs(), group.split, group.size, scene)
    item = look(backdrop, scene)
    rows: list[Row] = []
    names = _clip_names(task, group.name, group.suffix)
    if task != "label":
        fps = TRACK_RATES[int(scene.integers(len(TRACK_RATES)))]
        for number, name in enumerate(names):
            rng = np.random.default_rng([seed, index, 1 + number])
            track = TRACKS[task][1](fps, group.size, rng)
            frames = add_grain(render(backdrop, track.path, item), rng)
            write_video(os.path.join(folder, name), frames, fps, group.codec)
            rows += [(name, *row, group.name, group.split) for row in track.rows]
        return rows
    for number, (label, name) in enumerate(zip(CLASSES, names, strict=True)):
        rng = np.random.default_rng([seed, index, 1 + number])
        path = trajectory(label, np.arange(group.count) / (group.count - 1), group.motion, group.size, rng)
        write_video(os.path.join(folder, name), add_grain(render(backdrop, path, item), rng), group.fps, group.codec)
        rows.append((name, label, group.name, group.split))
    return rows


def _is_complete(folder: str, mark: dict[str, Any], expected: set[str]) -> bool:
    """Whether a folder holds this demo already; DataError where it holds what does not belong to it."""
    found = set()
    for base, _, files in os.walk(folder):
        found |= {os.path.relpath(os.path.join(base, file), folder).replace(os.sep, "/") for file in files}
    if MARK in found:
        try:
            with open(os.path.join(folder, MARK), encoding="utf-8") as file:
                written = json.load(file)
        except ValueError:
            written = None
        if written != mark:
            raise DataError(f"{folder} holds another demo; remove it or choose another folder")
    strange = sorted(found - expected)
    if strange:
        raise DataError(f"{folder} holds other files, such as {strange[0]}; choose an empty folder")
    return found == expected


def _format(index: int, seed: int) -> tuple[str, str, str]:
    """Name, suffix and codec of a group. Formats take turns, so that few groups show them all."""
    turn = np.random.default_rng([seed, 0]).permutation(len(FORMATS))
    suffix, codec = FORMATS[turn[index % len(FORMATS)]]
    return f"g{index + 1:03d}", suffix, codec


def _split(index: int, groups: int) -> str:
    """The first two thirds of the groups train, the last fifth tests."""
    test = max(1, round(groups * 0.2))
    val = max(1, round(groups * 2 / 15))
    return "train" if index < groups - test - val else "val" if index < groups - test else "test"


def _group(index: int, groups: int, seed: int) -> Group:
    rng = np.random.default_rng([seed, index, 0])
    name, suffix, codec = _format(index, seed)
    split = _split(index, groups)
    fps, size = RATES[int(rng.integers(len(RATES)))], SIZES[int(rng.integers(len(SIZES)))]
    # At least 13 frames, so that twelve moments show twelve of them.
    seconds = rng.uniform(max(1.0, 13 / fps), 1.5)
    # Widths per second, such that the clip as a whole goes 0.5 to 1.2 widths.
    speed = rng.uniform(max(0.5, 0.55 / seconds), min(1.1, 1.15 / seconds))
    travel = speed * seconds
    # The other motions are as fast in proportion: slow groups turn and grow less.
    pace = (travel - 0.5) / 0.7
    span = np.log(DIAMETER[1] / DIAMETER[0])
    motion = Motion(travel, 0.75 + 0.5 * pace, span * (0.75 + 0.2 * pace))
    return Group(name, split, suffix, codec, fps, round(seconds * fps), size, motion)
