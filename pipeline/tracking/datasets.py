"""Data sets as MLflow shows them beside a run: a name, a digest, where they came from, what they are for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.tracking.run import Run

DIGEST = 16
"""Characters of a digest that MLflow is told: it takes 36 and shows all of them in its table."""


@dataclass(frozen=True)
class DataInput:
    """A data set that a run reads.

    Attributes:
        name: of the whole, shared by its splits.
        digest: of its contents and targets, hex.
        context: what it is for: train, val, test, classify.
        source: folder, list or address.
        profile: numbers about it.
        columns: name and MLflow type of what a row has.
    """

    name: str
    digest: str
    context: str
    source: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


def record_inputs(run: Run, inputs: Sequence[DataInput]) -> None:
    """Tell a run what it reads; twice the same counts once."""
    for one in inputs:
        columns = [{"name": name, "type": kind} for name, kind in one.columns.items()]
        run.dataset(
            one.name[:500],
            one.digest[:DIGEST],
            json.dumps({"uri": one.source}),
            one.context,
            schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
            profile=json.dumps(dict(one.profile), ensure_ascii=False),
        )
