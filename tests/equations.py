"""Recurrences written as their equations are, differentiated by autograd: slow, and plain to check."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.cells.layer_norm_scan import EPSILON


def layer_norm_reference(
    pre: Tensor, weight: Tensor, scale: Tensor, cell_scale: Tensor, cell_shift: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm_scan`, which says what the arguments are."""
    h, c = state
    hidden, cells, gates = [], [], []
    for pre_t in pre.unbind():
        i, f, g, o = (pre_t + F.layer_norm(h @ weight.t(), scale.shape, scale, None, EPSILON)).chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = f * c + i * g
        h = o * torch.tanh(F.layer_norm(c, cell_scale.shape, cell_scale, cell_shift, EPSILON))
        hidden.append(h)
        cells.append(c)
        gates.append(torch.cat([i, f, g, o], -1).detach())
    return torch.stack(hidden), torch.stack(cells), torch.stack(gates)
