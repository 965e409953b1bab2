"""The served model as MLflow loads it: this file, beside a checkpoint and this package's code, and no pickle.

It is copied into each model's folder and run from there, so it may import nothing at its top but MLflow. What it does
is in `pipeline.stages.serve`.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

warnings.filterwarnings("ignore", message=".*type hints.*")  # they would make it take other inputs than the signature's
COLUMNS = ("video", "content", "name")
"""Of the input; a row has a video, or its content."""


class VideoModel(PythonModel):  # type: ignore[misc]
    """Answers to video files: one row in, one row out, whatever is wrong with it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint, with the code it was trained with unless this package is loaded already."""
        if "pipeline" not in sys.modules:
            sys.path.insert(0, context.artifacts["code"])
        from pipeline.stages.serve.engine import VideoServer

        self.server = VideoServer.of(context.artifacts["checkpoint"])

    def predict(  # type: ignore[no-untyped-def]
        self, context, model_input, params: dict[str, Any] | None = None
    ):
        """A dictionary for each row of `model_input`, a table with the columns `video`, or `content` and `name`."""
        given = params or {}
        top_k, least = int(given.get("top_k", 5)), float(given.get("min_probability", 0.0))
        if top_k < 1 or not 0 <= least <= 1:
            raise MlflowException.invalid_parameter_value(
                f"top_k is {top_k}, min_probability {least}: top_k must be 1 or more, min_probability from 0 to 1"
            )
        columns = [model_input[name] if name in model_input else [None] * len(model_input) for name in COLUMNS]
        rows = zip(*columns, strict=True)
        return [self.server.answer(video, content, name, top_k, least) for video, content, name in rows]


set_model(VideoModel())
