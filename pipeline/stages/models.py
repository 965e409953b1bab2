"""MODEL on any command line: a checkpoint folder, a run's folder, or an address in the MLflow store."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline.config import TrackingConfig
from pipeline.errors import CheckpointError
from pipeline.stages.predict import Predictor, load_predictor
from pipeline.stages.run_folder import FOLDS

STORE_SCHEMES = ("runs:/", "models:/")


def load_model(name: str | Path, device: str = "auto", tracking: TrackingConfig | None = None) -> Predictor:
    """Read a model by name.

    Args:
        name: checkpoint folder; folder of a training (its best checkpoint); `runs:/ID`, `runs:/ID/FOLDER`,
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        device: see `TrainingConfig.device`.
        tracking: where the MLflow store is.

    Raises:
        CheckpointError: nothing there, or damaged.
        TrackingError: the store does not have it.
    """
    name = str(name)
    if name.startswith(STORE_SCHEMES):
        from pipeline.tracking.store import download

        with tempfile.TemporaryDirectory() as folder:
            return load_predictor(download(name, folder, tracking), device)
    folder_ = Path(name)
    if not folder_.exists():
        raise CheckpointError(f"{name}: no such checkpoint; MODEL is a checkpoint folder, runs:/... or models:/...")
    if (folder_ / FOLDS).exists():
        raise CheckpointError(f"{name} holds a model per fold; name one of them, such as {folder_ / 'fold-1'}")
    if not (folder_ / "model.json").exists() and (folder_ / "best").is_dir():
        folder_ = folder_ / "best"
    return load_predictor(folder_, device)
