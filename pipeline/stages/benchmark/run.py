"""Benchmark: where the time of a training or a classification goes on this machine, and how fast it could be at best.

`phases.py` measures, `throughput.py` reckons, `advice.py` says what to change.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config, TrackingConfig
from pipeline.model import checkpoint
from pipeline.model.classifier import build_classifier
from pipeline.stages.benchmark.advice import Advice, advise
from pipeline.stages.benchmark.phases import Bench
from pipeline.stages.benchmark.sample import sample_clips
from pipeline.stages.benchmark.throughput import Phase
from pipeline.stages.checks import check_encoder, check_task
from pipeline.stages.devices import choose_device
from pipeline.stages.models import load_model


@dataclass(frozen=True)
class Benchmarked:
    """What was measured.

    Attributes:
        name: of the configuration, or the model.
        source: whose clips were read.
        clips: how many of them, in the sample.
        device: where the model is.
        cores, workers, batch_size: usable cores, decoding processes, clips per update.
        phases: in the order of the job.
        advice: what to change first.
    """

    name: str
    source: str
    clips: int
    device: str
    cores: int
    workers: int
    batch_size: int
    phases: list[Phase]
    advice: Advice


def benchmark_training(config: Config, seconds: float = 30.0) -> Benchmarked:
    """Time a training with a configuration; its pretrained weights are not needed, random ones take as long.

    Args:
        config: everything. Without `data.root`, or where it is not there, demo clips are read.
        seconds: about how long it may take.

    Raises:
        UserError: what `train` would refuse, or clips that cannot be read.
    """
    device = choose_device(config.training.device)
    check_encoder(config)
    check_task(config)
    with sample_clips(config, seconds / 5) as sample, tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(config.seed)
        model = build_classifier(config, max(2, len(sample.classes)), load=False).to(device)
        bench = Bench(config, model, sample, device, Path(folder), seconds / 5)
        return _result(config.name, bench, [bench.extraction(), bench.stored()] if model.frozen else [bench.epoch()])


def benchmark_model(
    name: str, seconds: float = 30.0, device: str = "auto", workers: int = -1, uri: str | None = None
) -> Benchmarked:
    """Time classification with a trained model, on clips of the data it was trained on where that is still there.

    Args:
        name: see `stages.models.load_model`.
        seconds: about how long it may take.
        device, workers: as of `classify`.
        uri: MLflow store of `runs:/` and `models:/` addresses.

    Raises:
        CheckpointError: nothing there, or damaged.
        TrackingError: the store does not have it.
    """
    predictor = load_model(name, device, TrackingConfig(uri=uri))
    config = checkpoint.config_of(predictor.card)
    config = replace(config, training=replace(config.training, workers=workers))
    with sample_clips(config, seconds / 5) as sample, tempfile.TemporaryDirectory() as folder:
        bench = Bench(config, predictor.model, sample, predictor.device, Path(folder), seconds / 4)
        return _result(name, bench, [bench.classification(predictor)])


def as_dict(result: Benchmarked) -> dict[str, Any]:
    """As JSON can hold it, with what follows from the seconds."""
    phases = [
        asdict(phase)
        | {"shares": phase.shares, "bound": phase.bound, "efficiency": phase.efficiency, "total": phase.total}
        for phase in result.phases
    ]
    return asdict(result) | {"phases": phases}


def _result(name: str, bench: Bench, phases: list[Phase]) -> Benchmarked:
    advice = advise(phases, bench.config, bench.cores, bench.workers)
    clips, batch_size = len(bench.files), int(bench.config.training.batch_size)
    where = (str(bench.device), bench.cores, bench.workers)
    return Benchmarked(name, bench.sample.source, clips, *where, batch_size, phases, advice)
