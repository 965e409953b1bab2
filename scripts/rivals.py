"""What `bench_classify.py` compares with: the loop everyone writes, the machine's limit, and other libraries' models.

No decoding process imports this file, so it may import what it likes.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import cv2
import numpy as np
import psutil
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.data.clips import choose_frames
from pipeline.process import usable_cores
from pipeline.stages.predict import Predictor

Frames = NDArray[np.uint8]
Answer = Callable[[Frames], object]
Classify = Callable[[str], object]
HF_STEP = 18
"""Frames from one to the next that Hugging Face's pipeline takes: 16 of them span a clip of 300."""


@dataclass(frozen=True)
class Rate:
    """Clips per second, and seconds of all cores together per clip."""

    clips: float
    cpu: float


def cpu_seconds() -> float:
    """Of this process, of its children that are there, and of those that have ended."""
    me = psutil.Process()
    own = me.cpu_times()
    times = [own, *(child.cpu_times() for child in me.children(recursive=True))]
    return sum(one.user + one.system for one in times) + own.children_user + own.children_system


def timed(work: Iterator[object], warm: int) -> Rate:
    """The rate of what an iterator does, once `warm` clips are through."""
    for _ in range(warm):
        next(work)
    began, before = time.perf_counter(), cpu_seconds()
    clips = sum(1 for _ in work)
    return Rate(clips / (time.perf_counter() - began), (cpu_seconds() - before) / clips)


def plain_answer(predictor: Predictor) -> Answer:
    """The model as it is written: trunk in evaluation mode, NCHW, batch norm apart; frames uint8 (T, S, S, 3)."""
    encoder = predictor.model.encoders["rgb"]
    trunk = copy.deepcopy(encoder.trunk).eval().to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def answer(frames: Frames) -> NDArray[np.float64]:
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        maps = trunk((images - encoder.mean) / encoder.std)
        features = F.adaptive_avg_pool2d(maps, encoder.grid).flatten(1)[None]
        logits = predictor.model.head({"rgb": features}, torch.tensor([len(frames)]))
        return torch.softmax(logits[0].double(), -1).numpy()

    return answer


def loop(paths: Sequence[str], predictor: Predictor, answer: Answer) -> Iterator[object]:
    """Open with OpenCV as it opens by default, read all frames, sample, resize, forward one clip."""
    video = predictor.plan.video
    for path in paths:
        capture = cv2.VideoCapture(path)
        frames, times = [], []
        while True:
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            done, frame = capture.read()
            if not done:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        capture.release()
        chosen = choose_frames(np.arange(len(frames)) / 25.0, video)
        side = (video.size, video.size)
        yield answer(np.stack([cv2.resize(frames[i], side, interpolation=cv2.INTER_AREA) for i in chosen]))


def bare_decode(path: str, wanted: NDArray[np.int64], size: int) -> int:
    """Grab up to the last wanted frame with one thread, retrieve and shrink the wanted ones: nothing is checked."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    picked, last = set(wanted.tolist()), int(wanted[-1])
    for number in range(last + 1):
        capture.grab()
        if number in picked:
            cv2.resize(capture.retrieve()[1], (size, size), interpolation=cv2.INTER_AREA)
    capture.release()
    return last


def decode_limit(paths: Sequence[str], wanted: NDArray[np.int64], size: int) -> float:
    """Clips per second of bare decoding in a process per core."""
    cores = usable_cores()
    count = len(paths)
    with ProcessPoolExecutor(cores, get_context("spawn"), initializer=_one_thread) as pool:
        list(pool.map(bare_decode, paths[: 2 * cores], [wanted] * 2 * cores, [size] * 2 * cores))
        began = time.perf_counter()
        list(pool.map(bare_decode, paths, [wanted] * count, [size] * count))
        return count / (time.perf_counter() - began)


def forward_limit(predictor: Predictor, clips: int) -> float:
    """Clips per second of the bare model in batches of one size, on frames in memory, an own batch for each core."""
    video, cores = predictor.plan.video, usable_cores()
    encoder, batch = predictor.model.encoders["rgb"], 16
    images = torch.randint(0, 256, (batch, 3, video.size, video.size), dtype=torch.uint8)

    @torch.inference_mode()
    def one(_: int) -> None:
        features = encoder(images)
        for start in range(0, batch - video.frames + 1, video.frames):
            predictor.model.head({"rgb": features[start : start + video.frames][None]}, torch.tensor([video.frames]))

    calls = max(cores, clips * video.frames // batch)
    with ThreadPoolExecutor(cores, initializer=_one_thread) as pool:
        list(pool.map(one, range(2 * cores)))
        began = time.perf_counter()
        list(pool.map(one, range(calls)))
        return calls * batch / video.frames / (time.perf_counter() - began)


def _one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def peers(frames: int) -> tuple[dict[str, Classify], dict[str, str]]:
    """Other libraries' models with random weights: name -> path to answer; and why others are missing."""
    found: dict[str, Classify] = {}
    missing: dict[str, str] = {}
    if not importlib.util.find_spec("av"):
        return {}, dict.fromkeys(("r3d_18", "mvit_v2_s", "videomae"), "PyAV, which feeds them, is not installed")
    from torchvision.models import video as nets

    for name, side in (("r3d_18", 112), ("mvit_v2_s", 224)):
        found[name] = _torchvision(getattr(nets, name)(weights=None).eval(), frames, side)
    if not importlib.util.find_spec("transformers"):
        missing["videomae"] = "transformers is not installed"
        return found, missing
    try:
        found["videomae"] = _video_mae(frames)
    except (ImportError, OSError, ValueError, TypeError) as error:
        missing["videomae"] = str(error).splitlines()[0]
    return found, missing


def _torchvision(model: torch.nn.Module, count: int, side: int) -> Classify:
    @torch.inference_mode()
    def answer(path: str) -> object:
        clip = torch.from_numpy(by_pyav(path, count, side)).permute(3, 0, 1, 2).float().div(255).sub(0.45).div(0.225)
        return model(clip[None]).argmax()

    return answer


def _video_mae(count: int) -> Classify:
    """VideoMAE-base in Hugging Face's pipeline, which decodes by PyAV itself; frames from the whole clip as well."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    library = importlib.import_module("transformers")
    model = library.VideoMAEForVideoClassification(library.VideoMAEConfig(num_labels=400)).eval()
    whole = library.pipeline(
        "video-classification", model=model, image_processor=library.VideoMAEImageProcessor(), device="cpu"
    )

    def answer(path: str) -> object:
        return whole(path, num_frames=count, frame_sampling_rate=HF_STEP)

    return answer


def by_pyav(path: str, count: int, side: int) -> Frames:
    """Uint8 (count, side, side, 3): frames spread over the whole clip, shrunk."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = set(np.linspace(0, stream.frames - 1, count).astype(int).tolist())
        kept = [
            cv2.resize(frame.to_ndarray(format="rgb24"), (side, side), interpolation=cv2.INTER_AREA)
            for number, frame in enumerate(container.decode(stream))
            if number in wanted
        ]
    return np.stack(kept)
