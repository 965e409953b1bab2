"""Trainings with every option that has a state of its own, stopped in the middle: they end with the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import EncoderConfig
from pipeline.stages import keeper, sources
from pipeline.stages.resume import NAME
from pipeline.stages.train import train


class Stopped(BaseException):
    """Stops a training between two batches; `tests/stages/test_resume.py` kills whole processes."""


OPTIONS: dict[str, dict[str, Any]] = {
    "mixed, accumulated and averaged": {
        "training__mixup": 0.5,
        "training__cutmix": 1.0,
        "training__accumulate": 2,
        "training__ema": 0.9,
    },
    "fine-tuned in stages": {
        "encoder": EncoderConfig(
            name="compact", weights="none", frozen=False, unfreeze_after=1, unfreeze_blocks=2, layer_decay=0.5
        ),
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_stopped_training_ends_as_if_nothing_had_happened(
    name: str, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(training__epochs=3, training__batch_size=3, **OPTIONS[name])
    train(config, tmp_path / "one")
    monkeypatch.setattr(keeper, "SAVE_SECONDS", 0.0)
    read = sources.FileSource.batches

    def stopped(self: Any, epoch: int, order: Any, mine: Any = slice(None)) -> Any:
        for number, batch in enumerate(read(self, epoch, order, mine)):
            if epoch == 1 and number == 1 and order is not None:
                raise Stopped
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(sources.FileSource, "batches", stopped)
        with pytest.raises(Stopped):
            train(config, tmp_path / "two")
    saved = load_file(tmp_path / "two" / NAME)
    assert ("average.updates" in saved) == bool(config.training.ema)
    train(config, tmp_path / "two", resume=True)
    for kind in ("best", "last"):
        one, two = (load_file(tmp_path / folder / kind / "model.safetensors") for folder in ("one", "two"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    rows = [json.loads((tmp_path / folder / "report/history.json").read_text()) for folder in ("one", "two")]
    for row in rows[0] + rows[1]:
        del row["seconds"]
    assert rows[0] == rows[1] and len(rows[0]) == 3
