"""Time of an encoder on 16 frames: ours in inference against the plain call of its trunk.

    .venv/bin/python scripts/bench_encoder.py            the table of docs/benchmarks.md
    .venv/bin/python scripts/bench_encoder.py --quick    two encoders at one size; under a minute
    .venv/bin/python scripts/bench_encoder.py --json     one flat object of named ratios

plain: normalise, trunk, average pooling, with the trunk as torchvision makes it: evaluation mode, NCHW, fp32.
channels_last: the same with weights and frames in NHWC. ours: `Encoder` in inference, batch norm folded too, fp32.
bf16: ours with precision bf16, where the processor has instructions for it. All start from uint8 frames and run in
turns within each repeat, so that what else the machine does falls on each of them. The ratios are the plain call's time
over the other's, so above 1 the other is faster. Before it is timed, ours must give the plain call's features within
1e-4. The weights are random, which does not change the time.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import EncoderConfig, VideoConfig
from pipeline.model.encoder import Encoder, build_encoder

FRAMES = VideoConfig().frames
DEFAULT = EncoderConfig().name, VideoConfig().size
NETS = ("efficientnet_lite0", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "compact")
SIZES = (112, 224)
TOLERANCE = 1e-4

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """Median milliseconds of each way to encode the frames of one clip."""

    net: str
    size: int
    milliseconds: dict[str, float]

    def ratio(self, other: str) -> float:
        """Time of the plain call over another way's."""
        return self.milliseconds["plain"] / self.milliseconds[other]


def plain(encoder: Encoder, layout: torch.memory_format) -> Encode:
    """The call people write: the trunk in evaluation mode, its frames normalised, its map averaged."""
    trunk = copy.deepcopy(encoder.trunk).eval().to(memory_format=layout)

    def encode(frames: Tensor) -> Tensor:
        normalised = (frames.float() - encoder.mean) / encoder.std
        return F.adaptive_avg_pool2d(trunk(normalised.contiguous(memory_format=layout)), 1).flatten(1)

    return encode


def ways(name: str) -> dict[str, Encode]:
    """Every way to encode with one net and the same weights."""
    torch.manual_seed(0)
    ours = build_encoder(EncoderConfig(name=name, weights="none", frozen=True))
    found: dict[str, Encode] = {
        "plain": plain(ours, torch.contiguous_format),
        "channels_last": plain(ours, torch.channels_last),
        "ours": ours,
    }
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        mean, std = ours.mean.flatten().tolist(), ours.std.flatten().tolist()
        found["bf16"] = Encoder(ours.trunk, ours.dim, mean, std, frozen=True, precision="bf16")
    return found


@torch.inference_mode()
def measure(name: str, size: int, repeats: int) -> Row:
    """Time all ways on one clip.

    Raises:
        RuntimeError: ours gave other features than the plain call; the comparison would mean nothing.
    """
    frames = torch.randint(0, 256, (FRAMES, 3, size, size), dtype=torch.uint8)
    encoders = ways(name)
    results = {way: encode(frames) for way, encode in encoders.items()}  # also warms up
    difference = float((results["ours"] - results["plain"]).abs().max())
    if difference > TOLERANCE:
        raise RuntimeError(f"{name} at {size} px: features differ by {difference:.1e}")
    seconds: dict[str, list[float]] = {way: [] for way in encoders}
    order = list(encoders)
    for repeat in range(repeats):
        turn = repeat % len(order)
        for way in order[turn:] + order[:turn]:
            started = time.perf_counter()
            encoders[way](frames)
            seconds[way].append(time.perf_counter() - started)
    return Row(name, size, {way: statistics.median(values) * 1000 for way, values in seconds.items()})


def bench(quick: bool) -> list[Row]:
    """Measure each net at each size."""
    nets, sizes = (NETS[:2], SIZES[:1]) if quick else (NETS, SIZES)
    repeats = {112: 20, 224: 8} if quick else {112: 40, 224: 20}
    return [measure(net, size, repeats[size]) for net in nets for size in sizes]


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """`encoder_folded` for the default encoder at the default size, `mobilenet_v2_224_plain_over_ours` and so on."""
    found = {"encoder_folded": next(row.ratio("ours") for row in rows if (row.net, row.size) == DEFAULT)}
    for row in rows:
        for way in row.milliseconds:
            if way != "plain":
                found[f"{row.net}_{row.size}_plain_over_{way}"] = row.ratio(way)
    return {name: round(value, 3) for name, value in found.items()}


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    names = list(rows[0].milliseconds)
    heads = [*(f"{name}, ms" for name in names), *(f"plain / {name}" for name in names[1:])]
    lines = [f"| encoder, {FRAMES} frames | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [f"{row.milliseconds[name]:.1f}" for name in names] + [f"{row.ratio(name):.2f}" for name in names[1:]]
        lines.append(f"| {row.net}, {row.size} px | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two encoders at one size; under a minute")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object of named ratios")
    options = parser.parse_args(arguments)
    rows = bench(options.quick)
    print(json.dumps(ratios(rows)) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
