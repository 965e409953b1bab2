"""The demo clips of the tasks over time: what the list says is what the files show, and one frame says none of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.demo import write_demo
from pipeline.data.scene import Look, render
from pipeline.data.target_text import read_target
from pipeline.data.targets import Curve, Segments
from pipeline.data.tracks import APART, DIRECTIONS, SPEED, TRACKS, TURNS, phases, position, turns
from pipeline.errors import DataError
from pipeline.stages.ingest import Ingested, ingest
from pipeline.video.reader import probe
from tests.data.test_demo import hashes

SIZE, FPS = (160, 120), 20.0
PLAIN = Look("disc", "plain", np.full((2, 3), 255.0), np.full(3, 255.0))


def steps(path: np.ndarray) -> np.ndarray:
    """(T - 1, 2) of the object in frame widths and heights per second, over the joined borders."""
    moved = np.diff(path[:, :2] / SIZE, axis=0)
    return ((moved + 0.5) % 1 - 0.5) * FPS


@pytest.mark.parametrize("seed", range(20))
def test_each_phase_goes_its_way(seed: int) -> None:
    track = phases(FPS, SIZE, np.random.default_rng(seed))
    times, velocity = np.arange(len(track.path)) / FPS, steps(track.path)
    assert 2 <= len(track.rows) <= 5 and track.rows[0][0] == "0" and track.rows[-1][1] == ""
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(track.rows))
    speed = np.abs(velocity).max()
    assert speed <= SPEED[1] + 1e-9
    for start, end, label in track.rows:
        inside = (times[:-1] >= float(start)) & (times[1:] <= float(end or np.inf))
        assert inside.sum() >= FPS * 0.9
        wanted = np.array(DIRECTIONS[label]) * (speed if label != "still" else 0.0)
        np.testing.assert_allclose(velocity[inside], np.broadcast_to(wanted, (inside.sum(), 2)), atol=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_turns_are_as_many_as_the_value_says_and_apart(seed: int) -> None:
    track = turns(FPS, SIZE, np.random.default_rng(seed))
    ((value,),) = track.rows
    velocity = steps(track.path)
    straight = np.abs(np.diff(velocity, axis=0)).max(axis=1) < 1e-6
    bent = np.flatnonzero(~straight)
    events = 0 if not len(bent) else 1 + int((np.diff(bent) > 2).sum())
    assert events == int(value) <= TURNS
    if len(bent):
        assert bent[0] / FPS > APART - 3 / FPS and (len(track.path) - bent[-1]) / FPS > APART - 3 / FPS
        assert all(gap <= 1 or gap / FPS > APART - 3 / FPS for gap in np.diff(bent))


def test_how_often_it_turns_does_not_show_in_the_length() -> None:
    drawn = [turns(FPS, SIZE, np.random.default_rng(seed)) for seed in range(1500)]
    counts, lengths = np.array([int(t.rows[0][0]) for t in drawn]), np.array([len(t.path) for t in drawn])
    assert set(counts) == set(range(TURNS + 1)) and abs(np.corrcoef(counts, lengths)[0, 1]) < 0.08


def test_one_frame_tells_no_phase() -> None:
    """Where the object is has one and the same distribution in all phases: even over the whole frame."""
    places: dict[str, list[np.ndarray]] = {label: [] for label in DIRECTIONS}
    for seed in range(3000):
        rng = np.random.default_rng(seed)
        track = phases(FPS, SIZE, rng)
        start, end, label = track.rows[int(rng.integers(len(track.rows)))]
        last = len(track.path) - 1
        first, stop = int(np.ceil(float(start) * FPS)), int(float(end) * FPS) if end else last
        places[label].append(track.path[min(int(rng.integers(first, stop + 1)), last), :2] / SIZE)
    for found in places.values():
        for axis in np.array(found).T:
            shares = np.histogram(axis, bins=5, range=(0, 1))[0] / len(axis)
            assert np.abs(shares - 0.2).max() < 0.06


@pytest.mark.parametrize("seed", range(10))
def test_the_position_is_where_the_object_is_drawn(seed: int) -> None:
    track = position(FPS, SIZE, np.random.default_rng(seed))
    frames = render(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), track.path[::9], PLAIN)
    for (_, value), frame in zip(track.rows[::9], frames, strict=True):
        columns = np.flatnonzero((frame > 0).any(axis=(0, 2)))
        assert columns[0] > 0 and columns[-1] < SIZE[0] - 1  # all of it is in the frame: no wrapping
        assert (columns[0] + columns[-1]) / 2 / SIZE[0] == pytest.approx(float(value), abs=0.01)
    values = np.array([float(value) for _, value in track.rows])
    assert np.ptp(values) > 0.1 and np.abs(np.diff(values)).max() * FPS < 1.5


@pytest.fixture(scope="module", params=list(TRACKS))
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Ingested]:
    folder = tmp_path_factory.mktemp("demo")
    ticks: list[int] = []
    count = write_demo(str(folder), 4, seed=2, progress=ticks.append, task=request.param)
    from pipeline.config import DataConfig

    data = ingest(DataConfig(root=str(folder)), task=request.param)
    assert count == sum(ticks) == len(data.table)
    return request.param, folder, data


def test_the_files_decode_and_are_split_by_group(demo: tuple[str, Path, Ingested]) -> None:
    task, folder, data = demo
    assert (data.table["status"] == "ok").all() and data.table["codec"].nunique() >= 2 and not data.leaks
    assert data.table["duration"].between(1.9, 10.1).all()
    listed = pd.read_csv(folder / "clips.csv").drop_duplicates("path")
    assert listed["split"].tolist() == data.table["split"].tolist()
    assert (listed.groupby("group")["split"].nunique() == 1).all() and set(listed["split"]) == {"train", "val", "test"}
    assert data.classes == (sorted(set(pd.read_csv(folder / "clips.csv")["label"])) if task == "frame_label" else [])


def test_each_moment_of_a_file_has_its_target(demo: tuple[str, Path, Ingested]) -> None:
    task, _, data = demo
    for file in data.files("train"):
        moments = probe(file.path).times - probe(file.path).times[0]
        if isinstance(file.target, Segments):
            assert (file.target.at(moments) >= 0).all() and len(set(file.target.at(moments))) >= 2
        elif isinstance(file.target, Curve):
            assert (
                np.isfinite(file.target.at(moments)).all()
                and ((file.target.values > 0) & (file.target.values < 1)).all()
            )
        else:
            assert task == "regression" and isinstance(file.target, float) and 0 <= file.target <= TURNS


def test_the_same_seed_gives_the_same_files_and_another_task_is_refused(demo: tuple[str, Path, Ingested]) -> None:
    task, folder, data = demo
    again = folder.parent / f"again-{task}"
    write_demo(str(again), 4, seed=2, task=task)
    assert hashes(again) == hashes(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_demo(str(folder), 4, seed=2, task=task) == len(data.table)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(DataError, match="another demo"):
        write_demo(str(folder), 4, seed=2)
    assert json.loads((folder / "demo.json").read_text())["task"] == task


def test_a_text_of_the_demo_reads_back() -> None:
    target = read_target('{"segments": [[0, 1.5, "left"], [1.5, null, "up"]]}', "", {"left": 0, "up": 1})
    assert isinstance(target, Segments) and target.at(np.array([0.0, 1.4, 1.5, 9.0])).tolist() == [0, 0, 1, 1]
