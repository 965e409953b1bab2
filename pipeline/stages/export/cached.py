"""A checkpoint's graphs in the cache folder: exported once, when the engine is first asked for."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from pipeline.config.folders import cache_dir
from pipeline.errors import CheckpointError
from pipeline.stages.cache import EXPORTS
from pipeline.stages.export.engine import CARD, FORMAT, read_card, require
from pipeline.stages.export.run import export
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import say


def exported(predictor: Predictor) -> Path:
    """The folder with this model's graphs, made where it is not there yet. Safe with several processes.

    Args:
        predictor: the model, on the CPU.

    Raises:
        ConfigError: the extra [onnx] is not installed.
        ExportError: PyTorch cannot write the model, or the graphs are too far from it.
    """
    require("onnxruntime")
    place = exports_folder() / f"{predictor.digest}-{FORMAT}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        if not _whole(place):
            say("exporting the model to ONNX, once; the graphs are kept in the cache folder")
            export(predictor, place, clips=[], engine_alone=True)
    return place


def exports_folder() -> Path:
    """Where the graphs of all checkpoints are."""
    return Path(cache_dir()) / EXPORTS


def _whole(place: Path) -> bool:
    """Whether the graphs are there; their contents are checked when they are opened."""
    try:
        card = read_card(place)
    except CheckpointError:
        return False
    return all((place / name).is_file() and (place / name).stat().st_size == entry["bytes"]
               for name, entry in card["files"].items()) and (place / CARD).is_file()  # fmt: skip
