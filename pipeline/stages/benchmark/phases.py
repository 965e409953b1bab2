"""The phases of a training or a classification, timed: each step by itself, then the real thing.

A step by itself: loading in as many processes as there are cores, the model on what is in memory. The real thing is
the code that trains and classifies, for a while.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import psutil
import torch

from pipeline.config import Config, TrackingConfig
from pipeline.data.clips import ClipInputs, Plan
from pipeline.data.features import FeatureStore, feature_key
from pipeline.data.loading import time_file
from pipeline.data.pool import Lost
from pipeline.data.stream import Request, decoding_pool, stream_clips, view_seed
from pipeline.errors import DataError
from pipeline.model.classifier import Classifier
from pipeline.model.losses import known
from pipeline.process import usable_cores
from pipeline.stages.benchmark.clocks import Seconds, real_rate, repeated, time_inference, time_update
from pipeline.stages.benchmark.sample import Sample
from pipeline.stages.benchmark.throughput import Phase, PhaseName
from pipeline.stages.devices import choose_workers
from pipeline.stages.extract import training_views
from pipeline.stages.fit import groups_of
from pipeline.stages.predict import Predictor, encode_clip
from pipeline.stages.progress import say
from pipeline.stages.sources import FeatureSource, FileSource, Source
from pipeline.stages.step import TrainStep
from pipeline.tracking.runs import start

METRICS = 30
"""Numbers that an epoch of a two-layer recurrence records."""
WARM = 2
"""Batches, or clips per process, that pass before a clock starts."""
FASTEST = 2000
"""Clips per second that nothing here reaches: so many are asked for."""


class Bench:
    """One model and a sample of clips.

    Args:
        config: of the training, or of the model.
        model: on `device`; a training of it starts here, so its weights change.
        sample: at least one clip.
        device: where the model is.
        folder: for what is written.
        budget: seconds of a phase's longest measurements; the others take less.
    """

    def __init__(
        self, config: Config, model: Classifier, sample: Sample, device: torch.device, folder: Path, budget: float
    ) -> None:
        self.config, self.model, self.device = config, model, device
        self.sample, self.files, self.folder, self.budget = sample, sample.files, folder, budget
        self.plan = Plan.of(config)
        self.cores, self.workers = usable_cores(), choose_workers(config.training.workers)
        self.train_clips = max(1, round(sample.total * (1 - config.data.val - config.data.test)))
        whole = max(len(self.files), 4 * config.training.batch_size)  # whole batches, however few clips there are
        self.order = [int(index) for index in np.resize(np.arange(len(self.files)), whole)]
        self._plain: list[Request] = [(index, None) for index in range(len(self.files))]

    def epoch(self) -> Phase:
        """An encoder that is trained: everything, in each epoch."""
        seed = self.config.seed
        seconds = self._loading([(index, view_seed(seed, 0, index)) for index, _ in self._plain])
        source = FileSource(self.files, self.plan, self.config.training, self.workers, seed, device=self.device)
        with closing(source.pool):
            return self._training("epoch", seconds, source)

    def extraction(self) -> Phase:
        """A frozen encoder: each view of each clip, once."""
        requests = [request for clip in self._views() for request in clip]
        seconds, clip = self._loading(requests), self._clip()
        self.model.eval()
        say("the encoder alone")
        alone = self._inference(lambda: encode_clip(self.model, clip, self.device))
        seconds |= {step: value for step, value in alone.items() if step != "head"}
        store = FeatureStore(self.folder / "extracted")

        def extract() -> Iterator[tuple[int, float]]:
            for number, loaded in enumerate(stream_clips(self.files, self.plan, self.workers, self._many(requests))):
                began = time.perf_counter()
                if loaded.clip is not None:
                    store.put(f"{number:064x}", encode_clip(self.model, loaded.clip, self.device))
                yield 1, time.perf_counter() - began

        say("extraction as it is")
        others = self.sample.total - self.train_clips
        clips = self.train_clips * self.config.augmentation.views + others
        return self._phase("extraction", seconds, *self._rate(extract(), WARM * max(1, self.workers)), clips)

    def stored(self) -> Phase:
        """A frozen encoder: the epochs, which read what is kept. The vectors of one clip stand for all."""
        self.model.eval()
        vectors = encode_clip(self.model, self._clip(), self.device)
        views, store = self._views(), FeatureStore(self.folder / "stored")
        batch_size, seed = self.config.training.batch_size, self.config.seed
        source = FeatureSource(self.files, views, store, self.plan, "", batch_size, seed, lambda *_: vectors)
        for file, requests in zip(self.files, views, strict=True):
            for view, (index, random) in enumerate(requests):
                length = len(source.moments(index, view))
                kept = {name: np.resize(x, (length, x.shape[1])) for name, x in vectors.items()}
                store.put(feature_key(file.digest, self.plan, "", random), kept)
        read = repeated(lambda: _time_reading(source, self.order), self.budget / 4)
        return self._training("stored features", read, source)

    def classification(self, predictor: Predictor) -> Phase:
        """A trained model: from files to answers."""
        seconds, clip = self._loading(self._plain), self._clip()
        say("the model alone")
        seconds |= self._inference(lambda: predictor.answer(clip))
        say("classification as it is")
        answers = predictor.predict([self.files[index] for index, _ in self._many(self._plain)], self.workers)
        done = ((1, answer.seconds) for answer in answers)
        rate = self._rate(done, WARM * max(1, self.workers))
        return self._phase("classification", seconds, *rate, self.sample.total)

    def _training(self, name: PhaseName, seconds: Seconds, source: Source) -> Phase:
        """Updates on one batch in memory, then on all that the source gives."""
        step = TrainStep(self.model.train(), self.config, self.device, None)
        several = self.config.training.accumulate
        batch = next(iter(source.batches(0, self.order)))
        say("the model alone")
        alone = repeated(lambda: time_update(step, [batch] * several), self.budget)
        seconds |= {part: value / (several * len(batch.lengths)) for part, value in alone.items()}
        enough = max(several * self.config.training.batch_size, round(self.budget / sum(seconds.values())))

        def train() -> Iterator[tuple[int, float]]:
            """Epoch by epoch: a part of one may have decoded only."""
            yield 0, 0.0  # all is warm
            for epoch in count():
                clips, worked = 0, 0.0
                for group in groups_of(source.batches(epoch, self.order[:enough]), several):
                    began = time.perf_counter()
                    step.train([batch for batch in group if known(batch.targets).any()])
                    worked += time.perf_counter() - began
                    clips += sum(len(batch.lengths) for batch in group)
                yield clips, worked

        say("training as it is")
        rate, waiting = self._rate(train(), 1)
        seconds |= self._tracking()
        return self._phase(name, seconds, rate, waiting, self.config.training.epochs * self.train_clips)

    def _loading(self, requests: Sequence[Request]) -> Seconds:
        """Seconds per clip of decoding, transform and flow with every core busy at nothing else."""
        say(f"loading alone, {self.cores} processes")
        items = [(index, self.files[index], view) for index, view in self._many(requests)]
        warm = WARM * self.cores
        found: list[dict[str, float]] = []
        with decoding_pool(self.plan, self.cores) as pool:
            for number, result in enumerate(pool.run(partial(time_file, self.plan), items)):
                if number < warm:
                    end = time.perf_counter() + self.budget
                elif not isinstance(result, Lost):
                    found.append(result)
                if number > 2 * warm and time.perf_counter() > end:
                    break
        if not found:
            raise DataError("no clip of the sample could be loaded; run: video-lstm doctor DATA")
        return {step: statistics.fmean(one[step] for one in found) / self.cores for step in found[0]}

    def _inference(self, once: Callable[[], object]) -> Seconds:
        return repeated(lambda: time_inference(self.model, self.device, once), self.budget)

    def _tracking(self) -> Seconds:
        """Seconds per clip of what an epoch's record costs; the rest is done beside the training. In a SQLite store of
        its own, so that no run is left.
        """
        if not self.config.tracking.enabled:
            return {}
        run = start(TrackingConfig(uri=f"sqlite:///{self.folder / 'mlflow.db'}"), "benchmark", folder=self.folder)
        numbers = {f"metric{number}": 0.5 for number in range(METRICS)}

        def record(step: Iterator[int] = count()) -> Seconds:  # noqa: B008
            began = time.perf_counter()
            run.metrics(numbers, next(step))
            return {"tracking": time.perf_counter() - began}

        per_epoch = repeated(record, 0.5)["tracking"]
        run.finish()
        return {"tracking": per_epoch / self.train_clips}

    def _phase(self, name: PhaseName, seconds: Seconds, rate: float, waiting: float, clips: int) -> Phase:
        return Phase(name, seconds, rate, waiting, clips, self.device.type, occupied_cores())

    def _rate(self, done: Iterator[tuple[int, float]], warm: int) -> tuple[float, float]:
        return real_rate(done, warm, self.budget)

    def _views(self) -> list[list[Request]]:
        return training_views(self.files, self.config.augmentation.views)

    def _many(self, requests: Sequence[Request]) -> list[Request]:
        """The requests again and again, more than can be done."""
        wanted = math.ceil(FASTEST * max(self.budget, 1.0) / len(requests))
        return list(requests) * wanted

    def _clip(self) -> ClipInputs:
        """A clip as the encoder sees it."""
        for loaded in stream_clips(self.files, self.plan, 0):
            if loaded.clip is not None:
                return loaded.clip
        raise DataError("no clip of the sample could be loaded; run: video-lstm doctor DATA")


def occupied_cores() -> float:
    """Share of the usable cores that PyTorch's threads keep busy; two threads of one core count as one."""
    physical = min(psutil.cpu_count(logical=False) or usable_cores(), usable_cores())
    return min(1.0, torch.get_num_threads() / physical)


def _time_reading(source: Source, order: Sequence[int]) -> Seconds:
    began = time.perf_counter()
    clips = sum(len(batch.lengths) for batch in source.batches(0, order))
    return {"read": (time.perf_counter() - began) / clips}
