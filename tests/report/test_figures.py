from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.report.figures import confusion_figure, curves_figure, per_class_figure


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def history(epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "val_loss": 2 / epoch + 0.02 * epoch,
            "val_top1": 1 - 1 / (epoch + 1),
            "learning_rate": 1e-3 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def row(name: str, f1: float | None) -> dict[str, Any]:
    ends = (None, None) if f1 is None else (max(0.0, f1 - 0.1), min(1.0, f1 + 0.1))
    return {"class": name, "support": 12, "f1": f1, "f1_low": ends[0], "f1_high": ends[1]}


@pytest.mark.parametrize("k", [2, 8, 30, 101])
def test_a_confusion_matrix_stays_readable(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 3, (k, k)) + 20 * np.eye(k, dtype=int)
    path = tmp_path / "figures" / "confusion.png"
    confusion_figure(confusion.tolist(), [f"a long class name, number {i}" for i in range(k)], path)
    height, width = picture(path).shape[:2]
    # At least 0.15 inch per class at 150 dots per inch, and an image that browsers still show.
    assert k * 0.15 * 150 < height < 4000
    assert k * 0.15 * 150 < width < 4000


def test_colour_is_the_share_of_the_true_class(tmp_path: Path) -> None:
    # The rare class is always right: its cell must be as dark as that of the common one.
    confusion_figure([[1000, 0], [0, 2]], ["common", "rare"], tmp_path / "sure.png")
    confusion_figure([[1000, 0], [2, 0]], ["common", "rare"], tmp_path / "unsure.png")

    def dark(name: str) -> float:
        image = picture(tmp_path / name).astype(int)
        return float(((image[..., 2] < 30) & (image[..., 0] > 80)).mean())

    assert dark("sure.png") == pytest.approx(dark("unsure.png"), rel=0.05)
    assert dark("sure.png") > 0.1


def test_a_matrix_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 classes"):
        confusion_figure([[1, 2, 3]], ["a", "b"], tmp_path / "c.png")


def test_names_with_dollars_and_underscores_are_text(tmp_path: Path) -> None:
    path = tmp_path / "c.png"
    confusion_figure([[1, 0], [0, 1]], ["$x_{", "a$^b$"], path)
    per_class_figure([row("$x_{", 0.5)], path)
    assert picture(path).size


@pytest.mark.parametrize("epochs", [1, 3, 40])
def test_curves_of_any_length(tmp_path: Path, epochs: int) -> None:
    path = tmp_path / "curves.png"
    curves_figure(history(epochs), path)
    assert picture(path).shape[0] > 900


def test_curves_with_gaps(tmp_path: Path) -> None:
    rows = history(5)
    rows[1]["val_loss"] = float("nan")
    del rows[2]["val_top1"]
    rows[3]["learning_rate"] = None
    curves_figure(rows, tmp_path / "curves.png")
    curves_figure([{"epoch": 1, "train_loss": 1.0}], tmp_path / "alone.png")
    assert picture(tmp_path / "curves.png").size
    assert picture(tmp_path / "alone.png").size
    with pytest.raises(ValueError, match="no epochs"):
        curves_figure([], tmp_path / "none.png")


def test_per_class_grows_with_the_classes_and_takes_what_is_missing(tmp_path: Path) -> None:
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    per_class_figure([row("a", 0.8), row("b", None), row("c", 1.0)], few)
    per_class_figure([row(f"class {i}", i / 101) for i in range(101)], many)
    assert picture(many).shape[0] > 4 * picture(few).shape[0]


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        per_class_figure([row("a", 0.8), row("b", 0.4)], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_importing_loads_nothing_heavy_and_drawing_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, pipeline.report.figures as f, pipeline.report.tables, pipeline.report.metrics\n"
        "assert not {'matplotlib', 'sklearn', 'pandas', 'pyarrow', 'torch', 'rich'} & set(sys.modules)\n"
        f"f.confusion_figure([[1, 0], [0, 1]], ['a', 'b'], r'{tmp_path / 'c.png'}')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
