"""The demo clips: real files, the same every time, whose single frames say nothing about their class."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DataConfig
from pipeline.data import catalog
from pipeline.data.backdrop import background, look, photographs
from pipeline.data.demo import RATES, _group, _split, write_demo
from pipeline.data.layouts import discover
from pipeline.data.scene import (
    CLASSES,
    DIAMETER,
    GRAIN,
    SHAPES,
    TEXTURES,
    Look,
    Motion,
    add_grain,
    render,
    trajectory,
)
from pipeline.data.splits import assign
from pipeline.errors import DataError
from pipeline.video.reader import probe, read_frames
from pipeline.video.writer import write_video

GROUPS = 12
MOTION = Motion(travel=0.8, turns=0.9, growth=1.0)
SIZE = (160, 120)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    ticks: list[int] = []
    assert write_demo(str(folder), GROUPS, seed=3, progress=ticks.append) == 8 * GROUPS
    assert sum(ticks) == 8 * GROUPS
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """Digest of every file's content; of pixels and times where a Matroska header holds random numbers."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix in (".mkv", ".webm"):
            clip = read_frames(str(path), np.arange(probe(str(path)).frames))
            content = clip.frames.tobytes() + clip.times.tobytes()
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def test_the_files_are_what_the_list_says(demo: Path) -> None:
    with open(demo / "clips.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * GROUPS and {row["label"] for row in rows} == set(CLASSES)
    for row in rows:
        name = Path(row["path"])
        assert (demo / name).is_file() and name.parent.name == row["label"]
        assert name.stem == f"{row['label']}_{row['group']}_c01"
    splits = {row["group"]: row["split"] for row in rows}
    assert sorted(splits.values()).count("train") == 8
    assert all(splits[row["group"]] == row["split"] for row in rows)


def test_the_files_decode_and_a_group_shares_its_format(demo: Path, tmp_path: Path) -> None:
    data = DataConfig(root=str(demo))
    table = catalog.build(discover(data).entries, workers=1, cache=str(tmp_path))
    assert (table["status"] == "ok").all()
    assert table["duration"].between(0.95, 1.85).all() and (table["frames"] >= 12).all()
    for _, group in table.groupby("group"):
        shared = group[["frames", "width", "height", "codec"]].drop_duplicates()
        assert len(shared) == 1 and len(group) == 8
    assert table["codec"].nunique() >= 4 and table["width"].nunique() >= 4
    assigned = assign(table, data)
    assert assigned["split"].tolist() == table["split"].tolist()


def test_the_full_demo_is_split_by_group() -> None:
    splits = [_split(index, 120) for index in range(120)]
    assert [splits.count(name) for name in ("train", "val", "test")] == [80, 16, 24]


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 9)):
        write_demo(str(tmp_path / name), 3, seed)
    one, two, other = (hashes(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    del one["clips.csv"]
    assert not set(one.values()) & set(other.values())


def test_a_demo_that_is_there_is_left_alone(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert write_demo(str(demo), GROUPS, seed=3) == 8 * GROUPS
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before
    with pytest.raises(DataError, match="another demo"):
        write_demo(str(demo), GROUPS, seed=4)


def test_an_interrupted_demo_is_completed(tmp_path: Path) -> None:
    write_demo(str(tmp_path), 3)
    whole = hashes(tmp_path)
    (tmp_path / "demo.json").unlink()
    (tmp_path / "clips.csv").unlink()
    next(tmp_path.glob("up/*")).write_bytes(b"half a file")
    write_demo(str(tmp_path), 3)
    assert hashes(tmp_path) == whole
    assert json.loads((tmp_path / "demo.json").read_text())["groups"] == 3


def test_other_files_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"left/holiday\.mp4"):
        write_demo(str(tmp_path), 3)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["holiday.mp4"]
    with pytest.raises(DataError, match="at least 3"):
        write_demo(str(tmp_path / "new"), 2)


def paths(label: str, count: int, moments: np.ndarray) -> np.ndarray:
    """(count, T, 4) trajectories of one class."""
    return np.stack([trajectory(label, moments, MOTION, SIZE, np.random.default_rng([7, k])) for k in range(count)])


def one_frame(label: str, count: int) -> np.ndarray:
    """(count, 4) x, y, size and orientation in parts of their ranges, each at a random moment of its own clip."""
    moments = np.random.default_rng(CLASSES.index(label)).random(count)
    drawn = [trajectory(label, moments[k : k + 1], MOTION, SIZE, np.random.default_rng([7, k])) for k in range(count)]
    x, y, diameter, angle = np.concatenate(drawn).T
    size = np.log(diameter / (min(SIZE) * DIAMETER[0])) / np.log(DIAMETER[1] / DIAMETER[0])
    return np.stack([x / SIZE[0], y / SIZE[1], size, angle / (2 * np.pi)], axis=1)


@pytest.mark.parametrize("label", CLASSES)
def test_one_frame_has_the_same_distribution_in_every_class(label: str) -> None:
    count = 4000
    found, reference = one_frame(label, count), one_frame("left", count)
    assert found.min() >= 0 and found.max() <= 1
    for values, expected in zip(found.T, reference.T, strict=True):
        shares = [np.histogram(sample, bins=10, range=(0, 1))[0] / count for sample in (values, expected)]
        assert np.abs(shares[0] - shares[1]).max() < 0.03
    joint = [
        np.histogram2d(sample[:, 0], sample[:, 1], bins=5, range=[[0, 1]] * 2)[0] / count
        for sample in (found, reference)
    ]
    assert np.abs(joint[0] - joint[1]).max() < 0.03


def moved(label: str) -> np.ndarray:
    """(T - 1, 3) steps of x, y (in parts of the frame) and of log diameter; where it jumps back, the usual step."""
    path = paths(label, 1, np.linspace(0, 1, 40))[0]
    steps = np.diff(path[:, :2] / SIZE, axis=0)
    jumps = np.abs(steps).max(axis=1) > 0.15
    steps[jumps] = np.median(steps[~jumps], axis=0)
    return np.column_stack([steps, np.diff(np.log(path[:, 2]))])


def test_the_motion_is_that_of_the_class() -> None:
    total = {label: moved(label).sum(axis=0) for label in CLASSES}
    np.testing.assert_allclose(total["right"], [0.8, 0, 0], atol=1e-9)
    np.testing.assert_allclose(total["left"], [-0.8, 0, 0], atol=1e-9)
    np.testing.assert_allclose(total["down"], [0, 0.8, 0], atol=1e-9)
    np.testing.assert_allclose(total["up"], [0, -0.8, 0], atol=1e-9)
    assert np.median(moved("grow")[:, 2]) > 0.02 and np.median(moved("shrink")[:, 2]) < -0.02
    for label, sign in (("clockwise", 1), ("counter_clockwise", -1)):
        x, y = (moved(label)[:, :2] * SIZE).T
        turning = np.sign(x[:-1] * y[1:] - y[:-1] * x[1:])
        # With y pointing down, a positive cross product of successive steps is a turn to the right.
        assert (turning == sign).all()
    with pytest.raises(ValueError, match="sideways"):
        trajectory("sideways", np.zeros(1), MOTION, SIZE, np.random.default_rng(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_drawing_wraps_around_the_borders(shape: str) -> None:
    behind = np.full((90, 120, 3), 90, np.uint8)
    for texture in TEXTURES:
        item = Look(shape, texture, np.array([[250.0, 30, 30], [30, 250, 30]]), np.full(3, 250.0))
        centre = np.array([[60.0, 45.0, 40.0, 0.7]])
        corner = np.array([[0.0, 0.0, 40.0, 0.7]])
        middle, wrapped = render(behind, centre, item)[0], render(behind, corner, item)[0]
        np.testing.assert_array_equal(np.roll(middle, (-45, -60), axis=(0, 1)), wrapped)
        drawn = (middle != 90).any(axis=-1)
        assert 0.2 < drawn.sum() / (np.pi * 20**2) < 1.1
        assert not drawn[:20].any() and not drawn[:, :35].any()


def test_the_object_stands_out() -> None:
    images = photographs()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        behind = background(images, "train", (96, 72), rng)
        assert behind.shape == (72, 96, 3) and behind.dtype == np.uint8
        main = look(behind, rng).colours[0]
        distance = np.linalg.norm(behind.reshape(-1, 3) - main, axis=1)
        assert np.quantile(distance, 0.1) > 70


@pytest.mark.parametrize(("split", "shown"), [("train", 0), ("val", 0), ("test", 1)])
def test_training_and_test_show_different_pictures(split: str, shown: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is plain where it may be shown gives a plain background, once the noise is left out."""
    monkeypatch.setattr("pipeline.data.backdrop.pink_noise", lambda size, rng: np.zeros((size[1], size[0], 3)))
    busy = np.random.default_rng(0).integers(0, 255, (500, 600, 3), dtype=np.uint8)
    plain = np.full_like(busy, 100)
    images = {
        "china": busy if shown else plain,
        "hopper": plain if shown else busy,
        "flower": np.concatenate([busy[:, :300], plain[:, 300:]] if shown else [plain[:, :300], busy[:, 300:]], axis=1),
    }
    for seed in range(40):
        behind = background(images, split, (96, 72), np.random.default_rng(seed))
        assert behind.reshape(-1, 3).std(axis=0).max() == 0


def test_a_missing_picture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    photographs.cache_clear()
    monkeypatch.setattr("pipeline.data.backdrop.find_spec", lambda name: None)
    with pytest.raises(DataError, match="sklearn has no picture"):
        photographs()


def test_no_speed_of_the_test_groups_occurs_in_training() -> None:
    groups = [_group(index, 30, 0) for index in range(30)]
    assert [group.split for group in groups] == [_split(index, 30) for index in range(30)]
    travel = [group.motion.travel for group in groups]
    assert len(set(travel)) == 30 and min(travel) >= 0.5 and max(travel) <= 1.2
    speeds = [t * g.fps / g.count for t, g in zip(travel, groups, strict=True)]
    assert min(speeds) > 0.45 and max(speeds) < 1.15
    assert all(0.7 <= g.motion.turns <= 1.3 for g in groups)
    assert all(np.exp(g.motion.growth) >= 2 for g in groups)


def test_rates_are_kept(demo: Path) -> None:
    found = [probe(str(path)).fps for path in demo.glob("left/*")]
    # Matroska and WebM round each time to the millisecond, and the median step with it.
    assert all(min(abs(rate / fps - 1) for rate in RATES) < 0.025 for fps in found)
    assert len({round(fps) for fps in found}) >= 4


def test_grain_is_new_in_every_frame() -> None:
    still = np.full((5, 72, 96, 3), 100, np.uint8)
    grain = add_grain(still, np.random.default_rng(0)).astype(int) - 100
    assert np.abs(grain).max() == GRAIN and abs(grain.mean()) < 0.1
    for one, two in itertools.pairwise(grain):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.05
    assert add_grain(still[:1] + 155, np.random.default_rng(0)).min() >= 255 - GRAIN


def test_the_codec_leaves_no_trail_to_see(tmp_path: Path) -> None:
    """An object moving right and one moving left: at one moment the same frame, to half a grey level."""
    images = photographs()
    path = str(tmp_path / "x.mp4")
    differences = []
    for index in range(12):
        rng = np.random.default_rng(index)
        backdrop = background(images, "train", (96, 72), rng)
        item = look(backdrop, rng)
        rest = []
        for sign in (1, -1):
            where = np.array([[56.0 + sign * 2 * step, 36.0, 20.0, 0.0] for step in range(-18, 6)])
            frames = add_grain(render(backdrop, where, item), np.random.default_rng(index))
            write_video(path, frames, 25.0, "mp4v")
            shown = read_frames(path, np.array([18])).frames[0].astype(float)
            rest.append(np.abs(shown - backdrop).mean(axis=-1)[28:45])
        differences.append([(rest[0] - rest[1])[:, cut].mean() for cut in (slice(20, 44), slice(69, 93))])
    assert np.abs(np.mean(differences, axis=0)).max() < 0.5
