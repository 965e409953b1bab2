"""B13: validation clips are sampled at random, so that a score cannot be had twice (VideoMAE)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.clips import Plan
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fit import validate
from pipeline.stages.ingest import ingest
from pipeline.stages.resume import TrainingState
from pipeline.stages.sources import FileSource
from pipeline.stages.step import TrainStep


@pytest.mark.parametrize("workers", [0, 2])
def test_two_evaluations_are_equal_to_the_bit(predictor: Any, workers: int) -> None:
    metrics = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (the generator that must not matter)
        metrics.append(evaluate(predictor, None, "all", workers=workers))
        del metrics[-1]["readings"]  # when, and how often
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("sampling", ["uniform", "rate"])
def test_two_validations_are_equal_to_the_bit(
    predictor: Any, make_config: Any, tiny_clips: Path, sampling: str
) -> None:
    """With dropout and strong augmentation configured, which are for training alone."""
    config = make_config(video__sampling=sampling, augmentation__crop=0.2, augmentation__brightness=0.9)
    files = ingest(config.data).files("val")
    source = FileSource(files, Plan.of(config), config.training, 0, seed=0)
    step = TrainStep(predictor.model, config, torch.device("cpu"), None)
    state = TrainingState({}, "")
    try:
        step.model.train()
        found = [validate(step, source, state, lambda *_: None) for _ in range(2)]
        passes = [list(source.batches(epoch, None)) for epoch in (0, 1)]
    finally:
        step.model.eval()
    assert found[0] == found[1]
    for one, two in zip(*passes, strict=True):
        assert torch.equal(one.inputs["rgb"], two.inputs["rgb"]) and torch.equal(one.lengths, two.lengths)
