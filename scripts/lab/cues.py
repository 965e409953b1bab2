"""Cue videos: real files whose first frames show the class, and whose other frames show things that mean nothing.

They go the product's way: written with OpenCV, catalogued by `ingest`, encoded frame by frame by the frozen encoder of
`configs/lab/cue.yaml` through the feature store. A principal component analysis of the training clips' features then
leaves 32 numbers per frame, for all members and for the hidden Markov model alike.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from lab.tasks import Sequences
from pipeline.config import Config
from pipeline.data.clips import Plan
from pipeline.data.features import FeatureStore, feature_key
from pipeline.errors import DataError
from pipeline.model.classifier import build_classifier
from pipeline.stages.devices import choose_workers
from pipeline.stages.extract import encoders_digest, fill
from pipeline.stages.ingest import Ingested, ingest
from pipeline.video.writer import write_video

CLASSES = ("cross", "disc", "square", "triangle")
DISTRACTORS = ("bar", "ring", "ell")
CUE_FRAMES = 3
SIDE = 64
"""Height and width of a frame in pixels."""
FPS = 10.0
CLIPS = {"train": 160, "val": 40, "test": 100}
COMPONENTS = 32


def write_cues(folder: Path, gap: int, clips: dict[str, int] | None = None) -> Path:
    """Write `gap` distractor frames after 3 cue frames, as many clips of each split as `clips` says.

    The same arguments give the same files. What is there already stays.

    Returns:
        The list, clips.csv: path, label, split.
    """
    table = folder / "clips.csv"
    rows = ["path,label,group,split"]
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate((clips or CLIPS).items()):
        for index in range(count):
            label = CLASSES[index % len(CLASSES)]  # every class equally often
            name = f"{split}_{index:03d}.avi"
            rows.append(f"{name},{label},{split}{index},{split}")
            if not (folder / name).exists():
                part = folder / f"part_{name}"
                write_video(str(part), frames(label, gap, np.random.default_rng([gap, number, index])), FPS)
                part.replace(folder / name)
    table.write_text("\n".join(rows) + "\n")
    return table


def frames(label: str, gap: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One clip: uint8 (3 + gap, 64, 64, 3) RGB. Each frame has its own background, place, size and colour."""
    shown = [label] * CUE_FRAMES + [str(name) for name in rng.choice(DISTRACTORS, gap)]
    return np.stack([_picture(name, rng) for name in shown])


def _picture(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 120, (4, 4, 3), dtype=np.uint8)
    image = np.ascontiguousarray(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    x, y = (int(v) for v in rng.integers(24, SIDE - 24, 2))
    r = int(rng.integers(16, 22))
    colour = [int(v) for v in rng.integers(160, 256, 3)]
    if name == "disc":
        cv2.circle(image, (x, y), r, colour, -1)
    elif name == "ring":
        cv2.circle(image, (x, y), r, colour, 3)
    elif name == "square":
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), colour, -1)
    elif name == "triangle":
        corners = np.array([[x, y - r], [x - r, y + r], [x + r, y + r]], dtype=np.int32)
        cv2.fillConvexPoly(image, corners, colour)
    elif name == "bar":
        cv2.line(image, (x - r, y - r // 2), (x + r, y + r // 2), colour, 4)
    elif name == "ell":
        cv2.polylines(image, [np.array([[x, y - r], [x, y + r], [x + r, y + r]], dtype=np.int32)], False, colour, 4)
    else:
        cv2.line(image, (x - r, y), (x + r, y), colour, 9)
        cv2.line(image, (x, y - r), (x, y + r), colour, 9)
    return image


def prepare_cues(config: Config, folder: Path, gap: int, clips: dict[str, int] | None = None) -> dict[str, Sequences]:
    """Write, ingest and encode the clips of one gap.

    Args:
        config: of `configs/lab/cue.yaml`; its encoder must be frozen. The data and the number of frames are set here.
        folder: where the videos go.
        gap: distractor frames.
        clips: number per split.

    Returns:
        Split -> sequences of 3 + gap steps, standardised, 32 numbers each.

    Raises:
        DataError: a clip cannot be read.
        WeightsError: the encoder's packaged weights are not installed.
    """
    write_cues(folder, gap, clips)
    data = replace(config.data, root=str(folder), layout="list")
    config = replace(config, data=data, video=replace(config.video, frames=CUE_FRAMES + gap))
    found = ingest(config.data)
    features = _features(config, found)
    flat = features["train"].x.reshape(-1, features["train"].x.shape[2])
    reduce = PCA(min(COMPONENTS, *flat.shape), whiten=True, random_state=0).fit(flat)
    return {split: _reduced(reduce, sequences) for split, sequences in features.items()}


def _features(config: Config, found: Ingested) -> dict[str, Sequences]:
    """Split -> what the encoder makes of each frame."""
    model = build_classifier(config, len(found.classes)).eval()
    store, plan, digest = FeatureStore(), Plan.of(config), encoders_digest(model, config.encoder.grid)
    workers = choose_workers(config.training.workers)
    parts = {}
    for split in ("train", "val", "test"):
        files = found.files(split)
        views = [[(index, None)] for index in range(len(files))]
        failed = fill(model, files, views, plan, store, digest, torch.device("cpu"), workers).failed
        stored = [store.get(feature_key(file.digest, plan, digest, None)) for file in files]
        if failed or None in [entry and 1 for entry in stored]:
            raise DataError(f"{config.data.root}: {len(failed)} clips of {split} cannot be read")
        x = np.stack([np.asarray(entry["rgb"]) for entry in stored if entry is not None])
        labels = np.array([[int(file.target)] for file in files])
        parts[split] = Sequences(x, np.full(len(x), x.shape[1]), labels)
    return parts


def _reduced(reduce: PCA, sequences: Sequences) -> Sequences:
    count, steps, size = sequences.x.shape
    x = reduce.transform(sequences.x.reshape(-1, size)).astype(np.float32)
    return Sequences(x.reshape(count, steps, -1), sequences.lengths, sequences.y)
