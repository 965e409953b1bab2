from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from pipeline.report.sweep_figures import history_figure, importance_figure


def shape(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path))
    assert image is not None
    return image.shape[0], image.shape[1]


@pytest.mark.parametrize("minimise", [False, True])
def test_a_history_shows_every_kind_of_trial(tmp_path: Path, minimise: bool) -> None:
    trials = [(0, "failed", None), (1, "finished", 0.5), (2, "pruned", 0.2), (3, "finished", 0.9), (4, "running", None)]
    history_figure(trials, "val_top1", minimise, tmp_path / "all.png")
    history_figure([(0, "finished", 0.5)], "val_top1", minimise, tmp_path / "one.png")
    assert all(500 < side < 1300 for name in ("all", "one") for side in shape(tmp_path / f"{name}.png"))
    colours = {tuple(pixel) for row in cv2.imread(str(tmp_path / "all.png")) for pixel in row}
    assert {
        (0x00, 0x5E, 0xD5),
        (0xB2, 0x72, 0x00),
        (0xA7, 0x79, 0xCC),
    } <= colours  # BGR of failed, finished, best so far
    with pytest.raises(ValueError, match="no finished trial"):
        history_figure([(0, "failed", None)], "val_top1", minimise, tmp_path / "none.png")


def test_importance_grows_with_the_number_of_options(tmp_path: Path) -> None:
    heights = []
    for count in (1, 6):
        shares = {f"section.option_{number}_{'x' * 30}": 1 / count for number in range(count)}
        importance_figure(shares, "val_mae", 9, tmp_path / "shares.png")
        heights.append(shape(tmp_path / "shares.png")[0])
    assert heights[1] > heights[0] + 5 * 0.3 * 150
    with pytest.raises(ValueError, match="no options"):
        importance_figure({}, "val_mae", 9, tmp_path / "none.png")
