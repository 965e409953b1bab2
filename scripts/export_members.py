#!/usr/bin/env python
"""Export every member of the recurrent family, and the tasks and streams, and print how far each is from its model.

Weights are random; the numbers depend on no training and on no load. About ten minutes on a quiet core; --only names
some of the rows. Needs the extra [onnx].
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config, EncoderConfig, RecurrentConfig, VideoConfig, to_dict
from pipeline.model.cells import LAYERS
from pipeline.model.checkpoint import Card
from pipeline.model.classifier import build_classifier
from pipeline.stages.export.run import export
from pipeline.stages.predict import Predictor

CLASSES = ["one", "two", "three"]
SIZE = 32
MEMBERS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in ("none", *LAYERS)},
    "lstm, proj_size, residual": {"kind": "lstm", "proj_size": 32, "projection": 32, "residual": True},
    "lstm, zoneout": {"kind": "lstm", "zoneout": 0.1},
    "lstm, both directions": {"kind": "lstm", "bidirectional": True},
    "mlstm, both directions": {"kind": "mlstm", "bidirectional": True},
    **{f"gru, pooling {name}": {"kind": "gru", "pooling": name} for name in ("mean", "max", "attention", "linear")},
    **{f"lstm, {task}": {"task": task} for task in ("frame_label", "regression", "frame_regression")},
    "lstm, frames": {"streams": "rgb"},
    "conv_lstm, frames, grid 2": {"streams": "rgb", "grid": 2, "kind": "conv_lstm", "hidden": 8},
    "gru, frames + difference + flow": {"streams": "rgb+difference+flow", "kind": "gru"},
}
"""Rows of the table; the input is flow where nothing else is said."""


def predictor(streams: str = "flow", task: str = "label", grid: int = 1, **recurrent: Any) -> Predictor:
    """A model with random weights."""
    torch.manual_seed(0)
    config = Config(
        task=task,  # type: ignore[arg-type]
        video=VideoConfig(streams=streams, size=SIZE),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False, grid=grid),
        recurrent=RecurrentConfig(**{"hidden": 64, **recurrent}),
    )
    names = [] if config.numeric else CLASSES
    model = build_classifier(config, len(names), load=False)
    return Predictor(model, Card(to_dict(config), names), torch.device("cpu"), "0" * 64)


def differences(name: str) -> dict[str, float]:
    """File -> largest difference.

    Raises:
        ExportError: above the tolerance.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = export(predictor(**MEMBERS[name]), Path(folder) / "export", clips=[])
    return {file: max(kinds.values()) for file, kinds in result.parity.differences.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(MEMBERS), default=list(MEMBERS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the largest difference by name")
    options = parser.parse_args(arguments)
    found: dict[str, float] = {}
    for name in options.only:
        files = differences(name)
        found[name] = max(files.values())
        if not options.json:
            print(f"| {name} | " + ", ".join(f"{file} {value:.1e}" for file, value in files.items()) + " |", flush=True)
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
