"""Time of each recurrent layer against torch.nn.LSTM: a training step and inference, same sizes.

    .venv/bin/python scripts/bench_recurrent.py            the table of docs/benchmarks.md; some minutes
    .venv/bin/python scripts/bench_recurrent.py --quick    fewer repeats; under a minute
    .venv/bin/python scripts/bench_recurrent.py --json     one flat object of named ratios
    .venv/bin/python scripts/bench_recurrent.py --device cuda

A training step is forward, sum and backward with gradients of weights and input; inference is the forward pass without
gradients. Layers run in turns within each repeat, so that what else the machine does falls on each of them; a number is
the median. The ratios are a layer's time over that of `torch.nn.LSTM`, so below 1 the layer is faster. `loop` is the
peephole cell as the equations are written, one autograd operation after the other: what one gets without a scan.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.config import RecurrentConfig
from pipeline.model.cells import LAYERS, build_layer
from pipeline.model.cells.lstm import LSTMLayer
from pipeline.model.cells.lstm_scan import lstm_reference

SIZES = ((16, 16, 512, 256), (16, 64, 512, 256), (16, 400, 128, 128))
"""Clips, steps, input size, hidden size."""
GRID = 4
"""Cells per side of the maps that conv_lstm reads: as many numbers per step in and out as the others."""
SHORT = {"peephole_lstm": "peephole", "coupled_lstm": "coupled", "layer_norm_lstm": "layer_norm"}

Step = Callable[[], None]


@dataclass(frozen=True)
class Row:
    """Median milliseconds of each layer at one size."""

    steps: int
    sizes: tuple[int, int]
    training: dict[str, float]
    inference: dict[str, float]


class Loop(nn.Module):
    """A peephole layer whose every step goes through autograd."""

    def __init__(self, layer: LSTMLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As the layer."""
        zeros = x.new_zeros(len(x), self.layer.output_size)
        pre = x.transpose(0, 1) @ self.layer.weight_ih.t() + self.layer.bias
        hidden, _ = lstm_reference(pre, self.layer.weight_hh, (zeros, zeros), self.layer.peephole)
        return hidden.transpose(0, 1), ()


class Torch(nn.Module):
    """torch.nn.LSTM, called as the layers are."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.LSTM(size, hidden, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As the layer."""
        hidden, state = self.net(x)
        return hidden, state


def layers(size: int, hidden: int, kinds: Sequence[str]) -> dict[str, nn.Module]:
    """All layers of one size, torch.nn.LSTM first."""
    torch.manual_seed(0)
    found: dict[str, nn.Module] = {"torch.nn.LSTM": Torch(size, hidden)}
    for kind in kinds:
        channels = hidden // GRID**2 if kind == "conv_lstm" else hidden
        config = RecurrentConfig(kind=kind, hidden=channels, layers=1)  # type: ignore[arg-type]
        found[SHORT.get(kind, kind)] = build_layer(size, config, GRID)
    peephole = found.get("peephole")
    if isinstance(peephole, LSTMLayer):
        found["loop"] = Loop(peephole)
    return found


def measure(sizes: tuple[int, int, int, int], kinds: Sequence[str], repeats: int, device: str) -> Row:
    """Time all layers at one size."""
    batch, steps, size, hidden = sizes
    nets = {name: net.to(device) for name, net in layers(size, hidden, kinds).items()}
    x = torch.randn(batch, steps, size, device=device, requires_grad=True)
    lengths = torch.full((batch,), steps)

    def train(net: nn.Module) -> Step:
        def step() -> None:
            net.zero_grad()
            x.grad = None
            net(x, lengths)[0].sum().backward()

        return step

    def infer(net: nn.Module) -> Step:
        def step() -> None:
            with torch.inference_mode():
                net(x, lengths)

        return step

    repeats *= 4 if steps < 20 else 1  # short steps scatter more, and cost little
    training = _medians({name: train(net) for name, net in nets.items()}, repeats, device)
    inference = _medians({name: infer(net.eval()) for name, net in nets.items()}, repeats, device)
    return Row(steps, (size, hidden), training, inference)


def _medians(steps: dict[str, Step], repeats: int, device: str) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for repeat in range(repeats + 1):  # the first one warms up
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            _wait(device)
            started = time.perf_counter()
            steps[name]()
            _wait(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) * 1000 for name, values in seconds.items()}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """`peephole_t16`, `peephole_t16_inference` and so on: a layer's time over that of torch.nn.LSTM."""
    found = {}
    for row in rows:
        for suffix, times in (("", row.training), ("_inference", row.inference)):
            base = times["torch.nn.LSTM"]
            found |= {f"{name}_t{row.steps}{suffix}": round(value / base, 3) for name, value in list(times.items())[1:]}
    return found


def table(rows: Sequence[Row]) -> str:
    """Training steps and inference as Markdown."""
    lines = []
    for title in ("training", "inference"):
        heads = [f"T{row.steps}, {row.sizes[0]} to {row.sizes[1]}" for row in rows]
        lines += [f"| {title} step, ms (ratio) | {' | '.join(heads)} |", "|---" * (len(rows) + 1) + "|"]
        for name in rows[0].training:
            cells = []
            for row in rows:
                times = getattr(row, title)
                cells.append(f"{times[name]:.1f} ({times[name] / times['torch.nn.LSTM']:.2f})")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats; under a minute")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named ratios")
    parser.add_argument("--kinds", nargs="+", choices=list(LAYERS), default=list(LAYERS), help="layers to measure")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="threads of a CPU; 0: as many as PyTorch takes")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = [measure(sizes, options.kinds, 3 if options.quick else 15, options.device) for sizes in SIZES]
    print(json.dumps(ratios(rows)) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
