from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.report.scatter import scatter_figure
from pipeline.report.tracks import Track, curves_over_time_figure, ribbons_figure, spread


def labelled(number: int, wrong: int, steps: int = 12) -> Track:
    true = np.repeat([0, 1, 2], steps // 3)
    predicted = true.copy()
    predicted[:wrong] = 1 + predicted[:wrong] % 2
    return Track(f"some/where/clip{number}.mp4", np.arange(steps) / 4, true, predicted, steps / 4)


def valued(number: int, error: float, steps: int = 12) -> Track:
    true = np.linspace(0, 1, steps)
    return Track(f"clip{number}.mp4", np.arange(steps) / 4, true, true + error, steps / 4)


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image.astype(int)


def black(path: Path) -> float:
    return float((picture(path).max(axis=-1) < 40).mean())


def test_shown_clips_reach_from_the_worst_to_the_best() -> None:
    tracks = [labelled(number, number % 4) for number in range(20)]
    shown = spread(tracks, 5)
    losses = [track.loss for track in shown]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(3 / 12) and losses[-1] == 0
    nothing = Track("n", np.zeros(2), np.array([-1, -1]), np.array([0, 1]), 1.0)
    assert spread([nothing, tracks[1]]) == [tracks[1]]
    assert valued(0, 0.25).loss == pytest.approx(0.25)
    assert np.isnan(Track("n", np.zeros(1), np.array([np.nan]), np.zeros(1), 1.0).loss)


def test_misses_are_seen(tmp_path: Path) -> None:
    ribbons_figure([labelled(0, 0), labelled(1, 0)], ["a", "b", "c"], tmp_path / "right.png")
    ribbons_figure([labelled(0, 9), labelled(1, 9)], ["a", "b", "c"], tmp_path / "wrong.png")
    assert black(tmp_path / "wrong.png") > black(tmp_path / "right.png") + 0.005


@pytest.mark.parametrize("count", [1, 3, 30])
def test_ribbons_of_any_number_of_clips_and_classes(tmp_path: Path, count: int) -> None:
    classes = [f"$class_{{{index}" for index in range(3 if count < 30 else 40)]
    ribbons_figure([labelled(number, 2) for number in range(count)], classes, tmp_path / "r.png")
    height, width = picture(tmp_path / "r.png").shape[:2]
    assert 150 < height < 2500 and 800 < width < 1600


def test_a_still_image_has_a_ribbon_and_a_curve(tmp_path: Path) -> None:
    still = Track("still.png", np.zeros(1), np.array([1]), np.array([0]), 0.1)
    ribbons_figure([still], ["a", "b"], tmp_path / "r.png")
    curves_over_time_figure([valued(0, 0.1, 1)], tmp_path / "c.png")
    assert picture(tmp_path / "r.png").size and picture(tmp_path / "c.png").size


@pytest.mark.parametrize("count", [1, 2, 9])
def test_curves_of_any_number_of_clips(tmp_path: Path, count: int) -> None:
    curves_over_time_figure([valued(number, 0.1 * number) for number in range(count)], tmp_path / "c.png")
    assert picture(tmp_path / "c.png").shape[1] > 800


def test_points_on_the_line_and_off_it(tmp_path: Path) -> None:
    def tracks(error: float) -> list[Track]:
        return [Track("x", np.zeros(1), np.array([v]), np.array([v + error * (-1) ** v]), 1.0) for v in range(6)]

    scatter_figure(tracks(0.0), 1.0, tmp_path / "on.png")
    scatter_figure(tracks(2.0), None, tmp_path / "off.png")
    scatter_figure([tracks(0.0)[0]], None, tmp_path / "one.png")
    on, off = picture(tmp_path / "on.png"), picture(tmp_path / "off.png")
    assert on.shape[0] == pytest.approx(on.shape[1], rel=0.1) and not np.array_equal(on, off)
