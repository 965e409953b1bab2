from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.report.inside_figure import inside_figure


def reading(epoch: int, layers: int = 2, gates: tuple[str, ...] = ("input", "forget", "output")) -> dict[str, Any]:
    rng = np.random.default_rng(epoch)

    def gate() -> dict[str, float]:
        low, mean, high = sorted(rng.random(3).tolist())
        return {"mean": mean, "low": low, "high": high, "closed": 0.1, "open": 0.2}

    def layer() -> dict[str, Any]:
        curve = (10.0 ** -np.arange(12)[::-1]).tolist()
        curve[0], curve[1] = 0.0, None
        return {"gradient": curve, "gates": {name: gate() for name in gates}, "half_life": 3.0 if gates else None}

    updates = {"encoder": 1e-3, "output": 2e-3 * epoch}
    return {
        "epoch": epoch, "layers": {f"layer{i}": layer() for i in range(layers)}, "updates": updates,
        "seconds_per_step": 0.1,
    }  # fmt: skip


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        assert len(set(picture.convert("L").resize((60, 60)).getdata())) > 20
        return picture.size


@pytest.mark.parametrize("gates", [("input", "forget", "output"), ("reset", "update"), ()])
def test_a_picture_of_each_layer(tmp_path: Path, gates: tuple[str, ...]) -> None:
    inside_figure([reading(epoch, 2, gates) for epoch in (1, 5, 9)], tmp_path / "two.png")
    assert size(tmp_path / "two.png")[1] > 1000


def test_epochs_that_were_not_looked_at_are_passed_over(tmp_path: Path) -> None:
    empty = {"epoch": 2, "layers": {}, "updates": {}, "seconds_per_step": None}
    inside_figure([empty], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    inside_figure([reading(1), empty], tmp_path / "some.png")
    assert size(tmp_path / "some.png")[0] > 500


def test_pooling_alone_has_updates_to_show(tmp_path: Path) -> None:
    inside_figure([reading(epoch, 0) for epoch in (1, 2)], tmp_path / "updates.png")
    assert size(tmp_path / "updates.png")[0] > 500
