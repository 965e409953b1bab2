"""Whatever shares an encoder call with a clip, its answer stays the same, and answers keep the order of the files."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig
from pipeline.data.clips import ClipInputs
from pipeline.data.loading import LoadedClip
from pipeline.errors import ConfigError, Reason, VideoError
from pipeline.model.classifier import build_classifier
from pipeline.stages.batching import answer_all
from pipeline.stages.engine import Arrays, TorchEngine, encode_moments, image_streams

CPU = torch.device("cpu")


def clip_of(rng: np.random.Generator, length: int, size: int = 32) -> ClipInputs:
    images = rng.integers(0, 256, (length, 3, size, size), dtype=np.uint8)
    flow = rng.normal(size=(length, 128)).astype(np.float32)
    return ClipInputs({"rgb": images, "flow": flow}, np.arange(length) / 10)


def loaded(clips: Sequence[ClipInputs | None]) -> list[LoadedClip]:
    error = VideoError("x", Reason.EMPTY)
    return [LoadedClip(i, clip, None if clip else error) for i, clip in enumerate(clips)]


@pytest.mark.parametrize("name", ["compact", "mobilenet_v3_small"])
def test_other_neighbours_order_and_number_of_threads_change_no_bit(name: str) -> None:
    torch.manual_seed(0)
    config = Config(
        video=VideoConfig(frames=16, size=32, streams="rgb+flow"),
        encoder=EncoderConfig(name=name, weights="none", frozen=True),
        recurrent=RecurrentConfig(hidden=16, layers=1),
    )
    model = build_classifier(config, 3).eval()
    rng = np.random.default_rng(1)
    clips = [clip_of(rng, length) for length in (16, 1, 7, 33, 16, 5, 2, 12)]
    alone = []
    engine = TorchEngine(model, CPU)
    for clip in clips:
        features = encode_moments(engine, clip.inputs, image_streams(clip.inputs))
        alone.append(engine.head([features])[0].tobytes())
    assert len(set(alone)) == len(alone)
    for parallel in (1, 3):
        engine.parallel = parallel
        for order in (range(8), range(7, -1, -1), (3, 0, 6, 1, 2, 7, 5, 4), (4,)):
            found = list(answer_all(engine, loaded([clips[i] for i in order])))
            assert [one.output.tobytes() for one in found if one.output is not None] == [alone[i] for i in order]


class Recorder:
    """An engine that answers with the sum of a clip's images, takes its time, and notes how it is called."""

    name, images, parallel = "recorder", 4, 2

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls: list[int] = []
        self.buckets: list[list[int]] = []
        self.threads: set[int] = set()

    def encode(self, frames: Arrays) -> dict[str, NDArray[np.float32]]:
        images = frames["rgb"]
        self.calls.append(len(images))
        self.threads.add(threading.get_ident())
        time.sleep(0.002 * float(images[0].mean()) / 255)  # some calls take longer than others
        return {"rgb": images.reshape(len(images), -1).sum(1, dtype=np.float32)[:, None]}

    def head(self, features: Sequence[Arrays]) -> list[NDArray[np.float32]]:
        self.buckets.append([len(one["rgb"]) for one in features])
        return [np.array([one["rgb"].sum(), one["flow"].sum()], np.float32) for one in features]

    def clips(self, length: int) -> int:
        return self.most


@pytest.mark.parametrize("most", [1, 3])
def test_answers_come_in_the_order_of_the_files_with_the_failed_ones_in_their_place(most: int) -> None:
    rng = np.random.default_rng(2)
    clips = [None if i % 5 == 3 else clip_of(rng, 1 + i * 7 % 11 if i < 20 else 5, 4) for i in range(40)]
    engine = Recorder(most)
    found = list(answer_all(engine, loaded(clips)))
    assert [one.loaded.index for one in found] == list(range(40))
    for one, clip in zip(found, clips, strict=True):
        assert (one.output is None) == (clip is None)
        if clip is not None and one.output is not None:
            assert one.output[0] == pytest.approx(clip.inputs["rgb"].sum(dtype=np.float64), rel=1e-5)
            assert one.output[1] == pytest.approx(clip.inputs["flow"].sum(), rel=1e-4, abs=1e-3)
            assert one.length == clip.length and np.array_equal(one.times, clip.times) and one.seconds > 0
    images = sum(clip.length for clip in clips if clip)
    assert set(engine.calls) == {4} and len(engine.calls) == -(-images // 4)  # filled up across files
    assert all(len(set(bucket)) == 1 and len(bucket) <= most for bucket in engine.buckets)
    assert max(len(bucket) for bucket in engine.buckets) == most


def test_clips_are_not_taken_far_ahead_of_the_answers() -> None:
    """What waits between the decoder and the model is bounded, however long the archive is."""
    rng = np.random.default_rng(3)
    taken = 0

    def clips() -> Iterator[LoadedClip]:
        nonlocal taken
        for index in range(400):
            taken += 1
            yield LoadedClip(index, clip_of(rng, 4, 4))

    most = 0
    for number, _ in enumerate(answer_all(Recorder(1), clips())):
        most = max(most, taken - number)
    assert taken == 400 and most < 20


def test_an_error_of_the_model_reaches_the_caller_and_ends_the_threads() -> None:
    class Broken(Recorder):
        def encode(self, frames: Arrays) -> dict[str, NDArray[np.float32]]:
            raise RuntimeError("no such kernel")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no such kernel"):
        list(answer_all(Broken(1), loaded([clip_of(np.random.default_rng(0), 9, 4)] * 3)))
    assert threading.active_count() == before


def test_threads_of_the_caller_are_as_many_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(answer_all(Recorder(1), loaded([clip_of(np.random.default_rng(0), 9, 4)])))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_bf16_is_refused_on_a_cpu() -> None:
    config = Config(encoder=EncoderConfig(name="compact", weights="none"))
    with pytest.raises(ConfigError, match="bf16 is for GPUs"):
        TorchEngine(build_classifier(config, 2), CPU, "bf16")
