"""The picture of a recording: bounded columns, right places, minutes and hours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.events import Event
from pipeline.report.timeline_figure import Overview, timeline_figure


def test_columns_are_means_in_the_right_places_however_long_it_goes_on() -> None:
    overview = Overview(2, columns=16)
    size = overview._sums.nbytes
    for place in range(10_000):
        overview.add(place / 10, np.array([1.0, 0.0]) if place < 5000 else np.array([0.25, 0.75]))
    found = overview.columns(1000.0)
    assert overview._sums.nbytes == size and 8 <= len(found) <= 16
    edge = 500 / overview.width
    np.testing.assert_allclose(found[: int(edge)], [[1, 0]] * int(edge))
    np.testing.assert_allclose(found[int(edge) + 1 :], [[0.25, 0.75]] * (len(found) - int(edge) - 1))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert overview.highest.tolist() == [1.0, 0.75]


def test_columns_between_answers_have_those_of_the_nearest() -> None:
    overview = Overview(1, columns=64)
    for place in range(5):
        overview.add(place * 2.0, np.array([place / 4]))
    found = overview.columns(9.0)[:, 0]
    times = (np.arange(len(found)) + 0.5) * overview.width
    inside = (np.abs(times % 2 - 1) > overview.width) & (times < 8.9)
    np.testing.assert_allclose(found[inside], np.clip(np.round(times / 2), 0, 4)[inside] / 4)


@pytest.mark.parametrize(("duration", "classes"), [(0.0, 1), (7200.0, 40)])
def test_a_picture_of_nothing_and_one_of_two_hours(duration: float, classes: int, tmp_path: Path) -> None:
    overview = Overview(classes)
    overview.add(0.0, np.full(classes, 1 / classes))
    names = [f"class ${number} with a name that is much too long" for number in range(classes)]
    events = [Event(names[number % classes], 30.0 * number, 30.0 * number + 9, 0.9, 1.0, 0) for number in range(200)]
    timeline_figure(overview, events if duration else [], names, duration, "a$b.mp4", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1000 and picture.height > 250 and len(picture.convert("RGB").getcolors(1 << 20)) > 5
