"""Training and classification on a GPU; skipped without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.stages.classify import classify
from pipeline.stages.models import load_model
from pipeline.stages.train import train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


@pytest.mark.parametrize(
    "options",
    [
        {"training__precision": "fp32"},
        {"training__precision": "bf16"},
        {"training__precision": "fp16", "training__accumulate": 2},
        {"training__precision": "auto", "training__compile": True},
        {"encoder__name": "efficientnet_lite0", "encoder__weights": "packaged", "encoder__frozen": True},
        {"recurrent__kind": "peephole_lstm", "recurrent__zoneout": 0.1},
    ],
    ids=lambda options: "-".join(f"{key.partition('__')[2]}_{value}" for key, value in options.items()),
)
def test_a_training_on_a_gpu_is_usable_on_both(
    options: dict[str, Any], make_config: Any, tiny_clips: Path, tmp_path: Path
) -> None:
    config = make_config(training__device="cuda", training__epochs=6, training__workers=2, **options)
    trained = train(config, tmp_path / "run")
    assert trained.test["top1"] >= 0.5  # three classes that a mean colour tells apart
    tables = [
        classify(load_model(trained.checkpoint, device), tiny_clips, workers=0).table for device in ("cuda", "cpu")
    ]
    for gpu, cpu in zip(*tables, strict=True):
        assert gpu["status"] == cpu["status"]
        if gpu["status"] == "ok":
            assert gpu["label"] == cpu["label"]
            np.testing.assert_allclose(gpu["probability"], cpu["probability"], atol=5e-3)
