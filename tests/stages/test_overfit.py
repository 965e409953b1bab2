"""The sanity pass: what can be learned by heart is, what cannot is said, and the training does not notice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import FlowConfig, RecurrentConfig, TrackingConfig, VideoConfig
from pipeline.data.batches import collate
from pipeline.errors import DataError
from pipeline.model.classifier import build_classifier
from pipeline.stages.overfit import MOST, NEAR, PATIENCE, UPDATES, _copied, _goes_on, check_overfit
from pipeline.stages.train import train

CPU = torch.device("cpu")


class OneBatch:
    """A source of six clips that are one batch; each clip is what `value` makes of its number."""

    def __init__(self, targets: list[Any], value: Any) -> None:
        self.labels = list(range(len(targets)))
        self._batch = collate([{"flow": np.full((4, 2), value(i), dtype=np.float32)} for i in self.labels], targets)

    def batches(self, epoch: int, order: Any, mine: Any = slice(None)) -> Any:
        yield self._batch


def flow_config(make_config: Any, **changes: Any) -> Any:
    return make_config(video=VideoConfig(streams="flow", frames=4), flow=FlowConfig(grid=1), **changes)


@pytest.mark.parametrize(("task", "targets"), [("label", [0, 1, 2, 0, 1, 2]), ("regression", [0.5, -1.0, 0.0, 1.5])])
def test_different_clips_are_learned_and_equal_ones_are_not(make_config: Any, task: str, targets: list[Any]) -> None:
    config = flow_config(make_config, task=task, training__learning_rate=3e-4)  # too low for this: it is raised
    torch.manual_seed(0)
    model = build_classifier(config, 3)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    state = torch.get_rng_state()
    check_overfit(model, OneBatch(targets, lambda i: 0.5 * i - 1), config, CPU)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"cannot be learned by heart.*look alike.*training\.overfit_batch false"):
        check_overfit(model, OneBatch(targets, lambda _: 1), config, CPU)  # type: ignore[arg-type]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize(
    "recurrent",
    [
        {"dropout": 0.5},
        {"dropout": 0.5, "variational": True},
        {"zoneout": 0.5},
        {"weight_dropout": 0.5},
        {"kind": "slstm", "weight_dropout": 0.5, "layers": 2},
        {"kind": "layer_norm_lstm", "weight_dropout": 0.5},
        {"kind": "mlstm", "dropout": 0.5, "layers": 2},
    ],
)
def test_the_copy_drops_nothing(make_config: Any, recurrent: dict[str, Any]) -> None:
    config = flow_config(make_config, recurrent=RecurrentConfig(**({"hidden": 8, "layers": 1} | recurrent)))
    model = build_classifier(config, 3).train()
    inputs, lengths = {"flow": torch.randn(3, 4, 2)}, torch.tensor([4, 2, 3])
    copied = _copied(model).train()
    assert torch.equal(copied(inputs, lengths), copied(inputs, lengths))
    assert not torch.equal(model(inputs, lengths), model(inputs, lengths))


def test_a_training_has_the_same_numbers_with_and_without(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = replace(example.config.training, overfit_batch=True)
    train(replace(example.config, training=training, tracking=TrackingConfig(enabled=False)), tmp_path / "run")
    assert "4 clips are learned by heart in" in capsys.readouterr().err
    for kind in ("best", "last"):
        one, two = (load_file(folder / kind / "model.safetensors") for folder in (example.folder, tmp_path / "run"))
        assert all(torch.equal(one[key], two[key]) for key in one)
    rows = [json.loads((folder / "report/history.json").read_text()) for folder in (example.folder, tmp_path / "run")]
    for row in rows[0] + rows[1]:
        del row["seconds"]
    assert rows[0] == rows[1]


def test_a_slow_start_is_not_taken_for_data_that_cannot_be_learned() -> None:
    falling = [3 * 0.995**i for i in range(UPDATES)]  # 0.67 by then, and still falling by two fifths in a hundred
    assert _goes_on(falling, NEAR)
    assert not _goes_on([*falling, *[falling[-1]] * PATIENCE], NEAR)
    assert not _goes_on([*falling, 0.04], NEAR)
    assert not _goes_on([3 * 0.9995**i for i in range(MOST)], NEAR)
    assert not _goes_on([float("nan")] * UPDATES, NEAR)
