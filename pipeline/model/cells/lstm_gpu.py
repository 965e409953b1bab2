"""`lstm_scan`'s loops over time on a GPU: one launch for all steps instead of a dozen per step.

For float32, without zoneout, where Triton works (it comes with PyTorch's CUDA builds and needs a C compiler);
`lstm_scan` chooses, VIDEO_LSTM_NATIVE=0 switches it off. Matrix products are as exact as `torch.nn.LSTM`'s: in TF32
where `torch.backends.cudnn.allow_tf32` says so, which is PyTorch's default, else three times TF32, close to float32.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from pipeline.model.cells.native import SWITCH

ROWS = 16
"""Clips per program: the smallest matrix that a GPU's matrix units take."""

UNITS, MOST_UNITS = 16, 64
"""Hidden units per program: few, so that many programs share a step; more, where not all could run at once."""

DEPTH = 64
"""Columns of a product that are read at a time."""

TF32_CAPABILITY = (8, 0)


def suits(pre: Tensor, zoneout: Tensor | None) -> bool:
    """Whether these kernels can run a scan of these input products (T, B, G * H)."""
    if zoneout is not None or not pre.is_cuda or pre.dtype != torch.float32 or os.environ.get(SWITCH, "1") == "0":
        return False
    return pre.shape[-1] <= 3 * MOST_UNITS * _processors(pre.device.index or 0) and works(pre.device.index or 0)


@functools.cache
def works(device: int) -> bool:
    """Whether Triton is there and its kernels run on this GPU: tried once."""
    if importlib.util.find_spec("triton") is None or torch.cuda.get_device_capability(device) < TF32_CAPABILITY:
        return False
    x = torch.zeros(2, 1, 4, device=f"cuda:{device}")
    weight, start = x.new_zeros(4, 1), x.new_zeros(1, 1)
    try:
        forward_steps(x, torch.empty_like(x), weight, None, start, start, None, False)
        torch.cuda.synchronize(device)
    except Exception:
        return False
    return True


@functools.cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def forward_steps(
    pre: Tensor, gates: Tensor, weight: Tensor, peephole: Tensor | None, h: Tensor, c: Tensor,
    recurrent: Tensor | None, coupled: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fill `gates` (T, B, G * H) with the gates' values; hidden and cell states (T, B, H) each."""
    from pipeline.model.cells.lstm_kernels import forward_kernel

    steps, batch, size = pre.shape[0], pre.shape[1], h.shape[1]
    hidden, cells = pre.new_empty(2, steps, batch, size)
    peepholes, kept = _contiguous(peephole, pre), _contiguous(recurrent, pre)
    tensors = (pre.contiguous(), weight.contiguous(), peepholes, h.contiguous(), c.contiguous(), kept)
    options = {"PEEPHOLE": peephole is not None, "COUPLED": coupled, "RECURRENT": recurrent is not None}
    _launch(forward_kernel, (*tensors, gates, hidden, cells), steps, batch, size, options)
    return hidden, cells


def backward_steps(
    gates: Tensor, cells: Tensor, weight: Tensor, peephole: Tensor | None, c: Tensor,
    grad_hidden: Tensor, grad_cells: Tensor | None, recurrent: Tensor | None, coupled: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """As `lstm_native.backward_steps`."""
    from pipeline.model.cells.lstm_kernels import backward_kernel

    steps, batch, size = cells.shape
    c, peepholes = c.contiguous(), _contiguous(peephole, gates)
    arriving = grad_hidden.contiguous(), _contiguous(grad_cells, gates)
    grad_pre, dh, dc = torch.empty_like(gates), torch.empty_like(c), torch.empty_like(c)
    tensors = (gates, cells, weight.contiguous(), peepholes, c, *arriving, _contiguous(recurrent, gates))
    options = {"PEEPHOLE": peephole is not None, "COUPLED": coupled, "RECURRENT": recurrent is not None}
    options["TO_CELLS"] = grad_cells is not None
    _launch(backward_kernel, (*tensors, grad_pre, dh, dc), steps, batch, size, options)
    if peephole is None:
        return grad_pre, None, dh, dc
    d_i, d_f, _, d_o = grad_pre.view(steps, batch, 4, size).unbind(2)
    before = torch.cat([c.unsqueeze(0), cells[:-1]])
    of_peepholes = torch.stack([(d_i * before).sum((0, 1)), (d_f * before).sum((0, 1)), (d_o * cells).sum((0, 1))])
    return grad_pre, of_peepholes, dh, dc


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], steps: int, batch: int, size: int, options: dict[str, bool]
) -> None:
    """All programs of as many clips at a time as can run at once: they wait for each other."""
    device = tensors[0].device
    processors = _processors(device.index or 0) if device.type == "cuda" else 1  # Triton's interpreter has one
    units = UNITS
    while -(-size // units) > processors:
        units *= 2
    programs, parts = -(-size // units), -(-batch // ROWS)
    arrived = torch.zeros(parts, dtype=torch.int32, device=device)
    precision = "tf32" if torch.backends.cudnn.allow_tf32 else "tf32x3"
    together = max(1, processors // programs)
    for first in range(0, parts, together):
        kernel[(programs, min(together, parts - first))](
            *tensors, arrived, steps, batch, size, first,
            **options, ROWS=ROWS, UNITS=units, DEPTH=DEPTH, PRECISION=precision,
        )  # fmt: skip


def _contiguous(x: Tensor | None, instead: Tensor) -> Tensor:
    """What a kernel is given; of a tensor that is not there it reads nothing."""
    return instead if x is None else x.contiguous()
