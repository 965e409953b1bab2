"""MODEL on any command line: a checkpoint folder, a run's folder, or an address in the MLflow store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.addresses import STORE_SCHEMES
from pipeline.config import TrackingConfig
from pipeline.errors import CheckpointError
from pipeline.stages.devices import choose_device
from pipeline.stages.distributed import from_first, joined
from pipeline.stages.engine import Precision
from pipeline.stages.predict import Predictor, load_predictor
from pipeline.stages.run_folder import FOLDS


def load_model(
    name: str | Path,
    device: str = "auto",
    tracking: TrackingConfig | None = None,
    precision: Precision = "fp32",
) -> Predictor:
    """Read a model by name.

    Args:
        name: checkpoint folder; folder of a training (its best checkpoint); `runs:/ID`, `runs:/ID/FOLDER`,
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        device: see `TrainingConfig.device`.
        tracking: where the MLflow store is.
        precision: of the encoder; bf16 on GPUs alone.

    Raises:
        ConfigError: the device or the precision cannot be had.
        CheckpointError: nothing there, or damaged.
        TrackingError: the store does not have it.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(from_first(lambda: str(_find(str(name), folder, tracking))))
        predictor = load_predictor(found, device, precision)
    if str(name).startswith(STORE_SCHEMES):
        predictor.folder = None  # its copy is gone; what is noted of it goes into its run
    return predictor


@contextmanager
def opened_model(name: str | Path, device: str = "auto", tracking: TrackingConfig | None = None) -> Iterator[Predictor]:
    """`load_model` for work that several processes, started by `torchrun`, do together within it."""
    with joined(choose_device(device)):
        yield load_model(name, device, tracking)


@contextmanager
def checkpoint_folder(name: str | Path, tracking: TrackingConfig | None = None) -> Iterator[Path]:
    """Where the checkpoint of a MODEL lies, for as long as it is needed.

    Raises:
        CheckpointError: nothing there.
        TrackingError: the store does not have it.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield _find(str(name), folder, tracking)


def own_folder(name: str) -> Path:
    """The folder of a checkpoint that is to be changed: one on this machine.

    Raises:
        CheckpointError: nothing there, or an address in the store, whose models are not changed.
    """
    if name.startswith(STORE_SCHEMES):
        raise CheckpointError(f"{name}: what the store has is not changed; name a checkpoint folder")
    return _find(name, "", None)


def _find(name: str, folder: str, tracking: TrackingConfig | None) -> Path:
    """Where the checkpoint lies; what the store has is downloaded into `folder`."""
    if name.startswith(STORE_SCHEMES):
        from pipeline.tracking.download import download

        return download(name, folder, tracking)
    found = Path(name)
    if not found.exists():
        raise CheckpointError(f"{name}: no such checkpoint; MODEL is a checkpoint folder, runs:/... or models:/...")
    if (found / FOLDS).exists():
        raise CheckpointError(f"{name} holds a model per fold; name one of them, such as {found / 'fold-1'}")
    if (found / "export.json").exists():
        raise CheckpointError(f"{name} is an export, which PyTorch does not load; classify it with --engine onnx")
    return found / "best" if not (found / "model.json").exists() and (found / "best").is_dir() else found
