"""video-lstm: from a folder of labelled clips to a trained, tracked, tested CNN-LSTM, and from there to labels.

    >>> import pipeline
    >>> result = pipeline.train(pipeline.load_config("configs/demo.yaml"))
    >>> predictor = pipeline.load(result.checkpoint)
    >>> pipeline.classify(predictor, ["archive/"]).table

Importing this package loads neither torch nor mlflow; the first use of a function does.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# read by the libraries when they are imported: our errors replace the chatter of the decoders, and no library of
# ours asks the network for news
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"

_WHERE = {
    "Config": ("pipeline.config", "Config"),
    "load_config": ("pipeline.options", "load_config"),
    "ingest": ("pipeline.stages.ingest", "ingest"),
    "train": ("pipeline.stages.train", "train"),
    "cross_validate": ("pipeline.stages.cross_validate", "cross_validate"),
    "evaluate": ("pipeline.stages.evaluate", "evaluate"),
    "classify": ("pipeline.stages.classify", "classify"),
    "export": ("pipeline.stages.export.run", "export"),
    "explain": ("pipeline.stages.explain", "explain"),
    "load": ("pipeline.stages.models", "load_model"),
    "Predictor": ("pipeline.stages.predict", "Predictor"),
    "UserError": ("pipeline.errors", "UserError"),
}
__all__ = [
    "Config",
    "Predictor",
    "UserError",
    "__version__",
    "classify",
    "cross_validate",
    "evaluate",
    "explain",
    "export",
    "ingest",
    "load",
    "load_config",
    "train",
]

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.errors import UserError
    from pipeline.options import load_config
    from pipeline.stages.classify import classify
    from pipeline.stages.cross_validate import cross_validate
    from pipeline.stages.evaluate import evaluate
    from pipeline.stages.explain import explain
    from pipeline.stages.export.run import export
    from pipeline.stages.ingest import ingest
    from pipeline.stages.models import load_model as load
    from pipeline.stages.predict import Predictor
    from pipeline.stages.train import train


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
