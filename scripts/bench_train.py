"""An epoch on stored features against decoding each time; a training from files against what the machine can do.

    .venv/bin/python scripts/bench_train.py            the tables of docs/benchmarks.md; some minutes
    .venv/bin/python scripts/bench_train.py --quick    fewer clips and epochs; under a minute, without compilation
    .venv/bin/python scripts/bench_train.py --json     one flat object of named ratios

The clips are the demo's, rendered first; everything goes through the very loop that `train` runs, with its validation,
its look inside and its MLflow store. Weights are random, which does not change the time.

cached_speedup     frozen encoder: seconds per epoch of decoding and encoding each view again, over those of reading
                   stored features; views, order and configuration are the same, and the script refuses to compare
                   unless every loss and every score is equal to the last bit
loader_efficiency  trained encoder: clips per second of whole training epochs, over the bound: 1 / (decode + transform +
                   copy + forward + backward + optimiser), each in seconds per clip with all cores to itself. On a CPU
                   all of them want the same cores, so their times add up. The bound is measured before and after each
                   epoch, as a machine is not equally fast for minutes; median of the epochs; the worst of the encoders
tracking_share     of an epoch on stored features: what MLflow takes
channels_last      a training step with the trunk in NCHW, over ours
compile            a training step, over the same with `training.compile`; the losses of a few steps must agree
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import (
    AugmentationConfig,
    Config,
    DataConfig,
    EncoderConfig,
    RecurrentConfig,
    TrackingConfig,
    TrainingConfig,
    VideoConfig,
)
from pipeline.data.batches import Batch, ClipLoader, collate
from pipeline.data.clips import ClipInputs, Plan
from pipeline.data.demo import write_demo
from pipeline.data.stream import Request, decoding_pool
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.process import prepare_process
from pipeline.stages import inside
from pipeline.stages.benchmark.clocks import time_update
from pipeline.stages.benchmark.phases import Bench
from pipeline.stages.benchmark.sample import Sample
from pipeline.stages.devices import choose_device, choose_workers
from pipeline.stages.extract import training_views
from pipeline.stages.feed import sources_for
from pipeline.stages.fit import fit
from pipeline.stages.ingest import Ingested, ingest
from pipeline.stages.predict import encode_clip
from pipeline.stages.progress import say
from pipeline.stages.resume import TrainingState
from pipeline.stages.sources import FeatureSource, FileSource, Source
from pipeline.stages.step import TrainStep
from pipeline.tracking.runs import start

TRAINED = (("compact", 64), ("mobilenet_v3_small", 112))
"""Encoders that are trained, and the size of their frames."""
TOLERANCE = 1e-2
"""Largest relative difference between the losses of a compiled and a plain trunk over `STEPS` updates."""
STEPS = 5


@dataclass(frozen=True)
class Row:
    """One thing in two ways: seconds of each, and their ratio."""

    name: str
    what: tuple[str, str]
    seconds: tuple[float, float]

    @property
    def ratio(self) -> float:
        return self.seconds[0] / self.seconds[1]


class Decoding:
    """The clips of a `FeatureSource`, decoded and encoded each time: the same views in the same order, bit for bit.

    Args:
        source: what it stands for.
        views: per clip, the requests that the source's views are.
        loader: of the clips.
        encode: a clip to its features.
    """

    def __init__(
        self,
        source: FeatureSource,
        views: Sequence[Sequence[Request]],
        loader: ClipLoader,
        encode: Callable[[ClipInputs], dict[str, np.ndarray]],
    ) -> None:
        self.targets, self.labels, self.known_targets = source.targets, source.labels, source.known_targets
        self._source, self._views, self._loader, self._encode = source, views, loader, encode

    def batches(self, epoch: int, order: Sequence[int] | None, mine: slice = slice(None)) -> Iterator[Batch]:
        requests = [self._views[index][view] for index, view in self._source.drawn(epoch, order)]
        for batch in self._loader.batches(requests):
            clips = [
                ClipInputs({name: x[row, :length].numpy() for name, x in batch.inputs.items()}, np.zeros(length))
                for row, length in enumerate(batch.lengths.tolist())
            ]
            features = [self._encode(clip) for clip in clips]
            yield replace(batch, inputs=collate(features, [0] * len(clips)).inputs)


@dataclass(frozen=True)
class Fit:
    """A training: seconds of each epoch but the first, those of its record, and every number of every epoch."""

    seconds: list[float]
    tracking: list[float]
    history: list[dict[str, float]]

    @property
    def epoch(self) -> float:
        return statistics.median(self.seconds)


def trained(
    config: Config,
    model: Classifier,
    train: Source,
    val: Source | None,
    classes: list[str],
    after: Callable[[], None] = lambda: None,
) -> Fit:
    """`fit`, timed from the end of one epoch to the end of the next, with everything that happens in between but
    `after`, which is called between two epochs.
    """
    device = choose_device(config.training.device)
    state, card = TrainingState({}, ""), Card({}, classes, {}, {}, {}, {})
    seconds: list[float] = []
    tracking: list[float] = []
    began = 0.0
    with tempfile.TemporaryDirectory() as folder:
        tracking_config = replace(config.tracking, uri=f"sqlite:///{folder}/mlflow.db")  # not the user's
        run = start(tracking_config, config.name, folder=Path(folder))

        def record(row: dict[str, float], reading: dict[str, Any]) -> None:
            nonlocal began
            logged = time.perf_counter()
            run.metrics({**row, **inside.metrics(reading)}, int(row["epoch"]))
            now = time.perf_counter()
            seconds.append(now - began)
            tracking.append(now - logged)
            after()
            began = time.perf_counter()

        fitted = fit(model, train, val, config, state, card, Path(folder), device, record)
        run.finish()
    timeless = [{key: value for key, value in row.items() if key != "seconds"} for row in fitted.history]
    return Fit(seconds[1:], tracking[1:], timeless)  # the first epoch starts processes


def demo_config(root: str, epochs: int, **changes: Any) -> Config:
    """What all measurements share."""
    base = Config(
        name="bench_train",
        data=DataConfig(root=root),
        training=TrainingConfig(epochs=epochs, batch_size=16),
        tracking=TrackingConfig(enabled=False),
    )
    return replace(base, **changes)


def both_ways(config: Config) -> dict[str, Fit]:
    """A training with a frozen encoder, decoding each time and on stored features."""
    data = ingest(config.data)
    device, plan = choose_device(config.training.device), Plan.of(config)
    fits: dict[str, Fit] = {}
    with decoding_pool(plan, choose_workers(config.training.workers)) as pool:
        for way in ("decoding", "stored"):
            torch.manual_seed(config.seed)
            model = build_classifier(config, len(data.classes), load=False).to(device)
            sources: list[Any] = list(sources_for(config, data, model, TrainingState({}, ""), device))
            if way == "decoding":
                for number, (split, views) in enumerate((("train", config.augmentation.views), ("val", 1))):
                    loader = ClipLoader(data.files(split), plan, config.training.batch_size, pool)
                    requests = training_views(data.files(split), views)
                    encode = partial(encode_clip, model, device=device)
                    sources[number] = Decoding(sources[number], requests, loader, encode)
            fits[way] = trained(config, model, *sources, data.classes)
    return fits


def bench_cached(root: str, quick: bool) -> list[Row]:
    """A frozen encoder, both ways; the default one at its default size, two views of each clip.

    Raises:
        RuntimeError: the two ways gave different numbers; the comparison would mean nothing.
    """
    config = demo_config(
        root,
        3 if quick else 6,
        augmentation=AugmentationConfig(views=2),
        encoder=EncoderConfig(weights="none"),
        tracking=TrackingConfig(),
    )
    fits = both_ways(config)
    if fits["decoding"].history != fits["stored"].history:
        raise RuntimeError("stored features gave other numbers than decoding each time")
    stored = fits["stored"]
    share = sum(stored.tracking) / sum(stored.seconds)
    return [
        Row("cached_speedup", ("decoding and encoding", "stored features"), (fits["decoding"].epoch, stored.epoch)),
        Row("tracking_share", ("MLflow", "epoch on stored features"), (share * stored.epoch, stored.epoch)),
    ]


def bench_loader(root: str, data: Ingested, net: str, size: int, quick: bool) -> Row:
    """`loader_efficiency` of one encoder: epochs of `fit`, and the bound between them; the median epoch."""
    config = demo_config(
        root, 4 if quick else 10,  # an odd number of epochs is compared: the first is not
        video=VideoConfig(frames=12, size=size),
        encoder=EncoderConfig(name=net, weights="none", frozen=False),
        recurrent=RecurrentConfig(hidden=128, layers=2),
    )  # fmt: skip
    device, plan = choose_device(config.training.device), Plan.of(config)
    files, workers = data.files("train"), choose_workers(config.training.workers)
    sample = Sample(files, data.classes, len(data.table), root)
    torch.manual_seed(config.seed)
    model, twin = (build_classifier(config, len(data.classes), load=False).to(device) for _ in range(2))
    best: list[float] = []

    def at_best() -> None:
        with tempfile.TemporaryDirectory() as folder:
            phase = Bench(config, twin, sample, device, Path(folder), 1.0 if quick else 2.0).epoch()
        best.append(1 / phase.bound)

    source = FileSource(files, plan, config.training, workers, config.seed, device=device)
    with closing(source.pool):
        whole = [
            seconds / len(files) for seconds in trained(config, model, source, None, data.classes, at_best).seconds
        ]
    turns = [(statistics.fmean(bounds), real) for bounds, real in zip(pairwise(best), whole, strict=True)]
    turns.sort(key=lambda turn: turn[0] / turn[1])
    say(f"{net}: {', '.join(f'{bound / real:.2f}' for bound, real in turns)} of the bound in each epoch")
    return Row(f"loader_{net}", ("at best, a clip", "a clip in whole epochs"), turns[len(turns) // 2])


def one_batch(data: Ingested, config: Config) -> Batch:
    """The first training batch."""
    source = FileSource(data.files("train"), Plan.of(config), config.training, 0, config.seed)
    return next(iter(source.batches(0, list(range(config.training.batch_size)))))


def bench_steps(root: str, data: Ingested, net: str, size: int, quick: bool) -> list[Row]:
    """A training step in other ways, in turns: the trunk in NCHW, and compiled.

    Raises:
        RuntimeError: the compiled trunk learned something else.
    """
    plain = demo_config(
        root, 3,
        video=VideoConfig(frames=12, size=size),
        encoder=EncoderConfig(name=net, weights="none", frozen=False),
        recurrent=RecurrentConfig(dropout=0.0),
    )  # fmt: skip
    device = choose_device(plain.training.device)
    batch = one_batch(data, plain)
    ways = {"ours": plain, "NCHW": plain}
    if not quick:
        ways["compiled"] = replace(plain, training=replace(plain.training, compile=True))
    steps: dict[str, TrainStep] = {}
    for way, config in ways.items():
        torch.manual_seed(0)
        model = build_classifier(config, len(data.classes), load=False).to(device)
        steps[way] = TrainStep(model, config, device, None)
        steps[way].begin(0)
    for encoder in steps["NCHW"].model.encoders.values():
        as_planes(encoder)
    losses = {way: [step.train([batch])[0] for _ in range(STEPS)] for way, step in steps.items()}  # also warms up
    for way, found in losses.items():
        if not np.allclose(found, losses["ours"], rtol=TOLERANCE):
            raise RuntimeError(f"{net}, {way}: the losses of {STEPS} updates are {found}, not {losses['ours']}")
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    for _ in range(3 if quick else 15):
        for way, step in steps.items():
            seconds[way].append(sum(time_update(step, [batch]).values()))
    ours = statistics.median(seconds["ours"])
    others = {"NCHW": "channels_last", "compiled": "compile"}
    rows = []
    for way, name in others.items():
        if way in seconds:
            pair = (statistics.median(seconds[way]), ours)
            what = (f"{way} step", "our step")
            rows.append(Row(f"{name}_{net}", *((what, pair) if way == "NCHW" else (what[::-1], pair[::-1]))))
    return rows


def as_planes(encoder: Any) -> None:
    """Undo what an encoder does to lie channels last: its weights, and the frames on their way to the trunk."""
    encoder.trunk.to(memory_format=torch.contiguous_format)
    normalise = encoder._normalise
    encoder._normalise = lambda frames, dtype: normalise(frames, dtype).contiguous()


def bench(quick: bool) -> tuple[dict[str, float], list[Row]]:
    """Every named ratio, and the rows behind them."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VIDEO_LSTM_CACHE"] = str(Path(folder) / "cache")  # features of earlier runs would save work
        clips = str(Path(folder) / "clips")
        write_demo(clips, groups=6 if quick else 40)
        rows = bench_cached(clips, quick)
        data = ingest(DataConfig(root=clips))
        for net, size in TRAINED[:1] if quick else TRAINED:
            rows += [bench_loader(clips, data, net, size, quick), *bench_steps(clips, data, net, size, quick)]
    named = {row.name: row.ratio for row in rows}
    named["loader_efficiency"] = min(ratio for name, ratio in named.items() if name.startswith("loader_"))
    return {name: round(value, 4) for name, value in sorted(named.items())}, rows


def table(found: dict[str, float], rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| | | ms | | ms | ratio |", "|---|---|---|---|---|---|"]
    for row in rows:
        first, second = (1000 * value for value in row.seconds)
        lines.append(f"| {row.name} | {row.what[0]} | {first:.1f} | {row.what[1]} | {second:.1f} | {row.ratio:.2f} |")
    return "\n".join([*lines, "", f"loader_efficiency: {found['loader_efficiency']:.2f}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer clips and epochs; under a minute")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named ratios")
    options = parser.parse_args(arguments)
    prepare_process()  # as the command does
    found, rows = bench(options.quick)
    print(json.dumps(found) if options.json else table(found, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
