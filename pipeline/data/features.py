"""The feature store: what a frozen encoder makes of a clip, kept on disk under a key made of all that decides it.

The key covers the file's content, the sampling, the transform, the view and the encoder's weights. Change any of them
and the key is another one: a stale feature cannot be served (the caches people copy use the file name).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pipeline.data.clips import Plan

FORMAT = 2


class FeatureStore:
    """A folder of features, one small safetensors file per clip and view; safe with several writers.

    Args:
        folder: where; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> dict[str, NDArray[np.float32]] | None:
        """Per stream float32 (T, D), or None if the key is not there. A damaged file counts as not there."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return load_file(path)
        except (SafetensorError, OSError):
            return None

    def put(self, key: str, features: dict[str, NDArray[np.float32]]) -> None:
        """Keep features under a key; readers see all of it or nothing."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        os.close(handle)
        try:
            save_file({name: np.ascontiguousarray(x) for name, x in features.items()}, temporary)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def feature_key(digest: str, plan: Plan, encoders: str, view: int | None) -> str:
    """The key of one clip's features.

    Args:
        digest: sha256 of the file's content.
        plan: how the clip is read.
        encoders: digest of the weights that read it.
        view: None for the evaluation view, else the seed of the random one.
    """
    parts = {
        "format": FORMAT,
        "clip": digest,
        "video": {key: value for key, value in asdict(plan.video).items() if key != "partial"},
        "flow": asdict(plan.flow) if "flow" in plan.video.stream_names else None,
        "augmentation": None if view is None else _drawn(plan),
        "encoders": encoders,
        "view": view,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _drawn(plan: Plan) -> dict[str, float]:
    """The augmentation without the number of views, which changes how many there are and not what one is."""
    drawn = asdict(plan.augmentation)
    del drawn["views"]
    return drawn
