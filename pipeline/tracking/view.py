"""How MLflow's table shows the runs of an experiment: the columns that say something about ours.

MLflow keeps a view that a person shares as a tag of the experiment; its address ends with `?viewStateShareKey=NAME`. An
experiment gets one from us when it has none.
"""

from __future__ import annotations

import json

KEY = "video-lstm"
"""Name of the view."""
TAG = f"mlflow.sharedViewState.{KEY}"
COLUMNS = (
    "attributes.`Dataset`",
    "metrics.`test/top1`",
    "metrics.`test/top1_low`",
    "metrics.`test/top1_high`",
    "metrics.`val/loss`",
    "metrics.`time/fit`",
    "params.`recurrent.kind`",
    "params.`recurrent.hidden`",
    "params.`encoder.name`",
    "tags.`stage`",
)


def view() -> str:
    """The tag's value."""
    return json.dumps({"selectedColumns": COLUMNS, "orderByKey": "attributes.start_time", "orderByAsc": False})
