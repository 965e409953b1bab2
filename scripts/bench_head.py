"""What makes an epoch on stored features quick on a CPU: each part as PyTorch brings it along, over ours.

    .venv/bin/python scripts/bench_head.py            the table of docs/benchmarks.md; under a minute
    .venv/bin/python scripts/bench_head.py --quick    fewer repeats; some seconds
    .venv/bin/python scripts/bench_head.py --json     one flat object of named ratios

16 clips of 14 to 16 moments, 1280 features each, two layers of 128: the default head. Both ways run in turns within
each repeat, so that what else the machine does falls on both; a number is the median.

lstm, lstm_inference   a layer's training step (forward, backward), and its forward pass: packed clips through
                       `torch.nn.LSTM`, and padded ones through the scan of `pipeline/model/cells/lstm_scan.py`
dropout                of the features, forward and backward: `F.dropout`, and `regularise.drop`
update                 a whole update of `TrainStep` with neither of the two, and with both
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch.nn import functional as F

from pipeline.config import Config, DataConfig, EncoderConfig, RecurrentConfig
from pipeline.data.batches import Batch
from pipeline.model.cells import build_layer
from pipeline.model.cells.regularise import drop
from pipeline.model.classifier import build_classifier
from pipeline.process import prepare_process
from pipeline.stages.step import TrainStep

CLIPS, MOMENTS, FEATURES, HIDDEN, CLASSES = 16, 16, 1280, 128, 8
LENGTHS = torch.tensor([16, 16, 16, 16, 15, 16, 14, 16, 15, 14, 16, 16, 14, 16, 15, 16])
RATE = 0.3

Way = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """Median seconds of PyTorch's way and of ours."""

    name: str
    theirs: float
    ours: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.theirs / self.ours


@contextmanager
def torchs() -> Iterator[None]:
    """Within it heads run as PyTorch brings their parts along."""
    with ExitStack() as stack:
        stack.enter_context(patch("pipeline.model.cells.fused.suits", lambda *_: False))
        stack.enter_context(patch("pipeline.model.cells.regularise.drop", F.dropout))
        yield


def in_turns(name: str, theirs: Way, ours: Way, repeats: int) -> Row:
    """Time both ways, theirs within `torchs`."""
    ways = (theirs, torchs), (ours, nullcontext)
    seconds: tuple[list[float], list[float]] = [], []
    for repeat in range(repeats + 3):  # the first ones warm up
        for number in (0, 1) if repeat % 2 else (1, 0):
            way, context = ways[number]
            with context():
                started = time.perf_counter()
                way()
                seconds[number].append(time.perf_counter() - started)
    return Row(name, *(statistics.median(values[3:]) for values in seconds))


def lstm_rows(repeats: int) -> list[Row]:
    """A layer of the default kind on clips of several lengths."""
    layer = build_layer(FEATURES, RecurrentConfig(hidden=HIDDEN))
    x = torch.randn(CLIPS, MOMENTS, FEATURES)

    def train() -> None:
        layer.zero_grad()
        layer(x, LENGTHS)[0].sum().backward()

    @torch.inference_mode()
    def infer() -> None:
        layer(x, LENGTHS)

    return [in_turns("lstm", train, train, repeats), in_turns("lstm_inference", infer, infer, repeats)]


def dropout_row(repeats: int) -> Row:
    """Of a batch's features."""
    x = torch.randn(CLIPS, MOMENTS, FEATURES, requires_grad=True)
    return in_turns(
        "dropout", lambda: F.dropout(x, RATE).sum().backward(), lambda: drop(x, RATE).sum().backward(), repeats
    )


def update_row(repeats: int) -> Row:
    """Of the default model on stored features."""
    config = Config(name="bench_head", data=DataConfig(root="."), encoder=EncoderConfig(weights="none"))
    steps = {}
    for way in ("theirs", "ours"):
        torch.manual_seed(0)
        steps[way] = TrainStep(build_classifier(config, CLASSES, load=False), config, torch.device("cpu"))
        steps[way].begin(0)
    inputs = {"rgb": torch.randn(CLIPS, MOMENTS, FEATURES)}
    times = torch.arange(MOMENTS, dtype=torch.float64).expand(CLIPS, MOMENTS)
    batch = Batch(inputs, LENGTHS, torch.arange(CLIPS) % CLASSES, times)
    theirs, ours = (lambda way=way: steps[way].train([batch]) for way in steps)
    return in_turns("update", theirs, ours, repeats)


def bench(repeats: int) -> list[Row]:
    """All rows."""
    torch.manual_seed(0)
    return [*lstm_rows(repeats), dropout_row(repeats), update_row(repeats)]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| | PyTorch, ms | ours, ms | ratio |", "|---|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {row.name} | {1e3 * row.theirs:.2f} | {1e3 * row.ours:.2f} | {row.ratio:.2f} |" for row in rows)]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats; some seconds")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named ratios")
    options = parser.parse_args(arguments)
    prepare_process()  # as the command does
    rows = bench(10 if options.quick else 100)
    print(json.dumps({row.name: round(row.ratio, 3) for row in rows}) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
