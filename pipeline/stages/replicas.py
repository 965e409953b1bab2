"""The same model in several processes: one start, one gradient, one set of running statistics.

Each process has its share of every batch. Where each clip's loss is divided by what the whole batch weighs, the
gradients of the shares add up to the gradient of the batch: what one process would compute, up to the order of
summation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.stages.distributed import from_first, is_first, place, sum_over_all, tensor_from_first
from pipeline.stages.resume import load_moments, moments


def total(value: float, device: torch.device) -> float:
    """The sum of a number over all processes; exact for counts."""
    if place().world == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64, device=device)
    sum_over_all(summed)
    return float(summed)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
    """Gradients and losses of all processes' shares, added up: once per update, after the last backward pass.

    A parameter that has a gradient nowhere keeps none. A process whose share is empty adds zeros.

    Args:
        parameters: the model's, in the same order everywhere; their gradients are replaced.
        loss: of this process's share, a scalar.

    Returns:
        The sum of the losses.
    """
    if place().world == 1:
        return loss
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    given = loss.new_tensor([float(p.grad is not None) for p in learning])
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), given, loss.reshape(1)])
    sum_over_all(flat)
    *sums, given, loss = flat.split([*(p.numel() for p in learning), len(learning), 1])
    for parameter, gradient, count in zip(learning, sums, given.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if count else None
    return loss.squeeze(0)


@torch.no_grad()
def share_state(model: nn.Module, optimizer: torch.optim.Optimizer, more: Mapping[str, Tensor]) -> None:
    """Weights, buffers and moments of the first process for all, and `more` tensors: no other one needs its folder."""
    if place().world == 1:
        return
    for tensor in [*model.state_dict().values(), *more.values()]:
        moved = tensor.detach().cpu().contiguous()
        tensor_from_first(moved)
        tensor.copy_(moved)
    own = moments(optimizer)
    described = {name: [list(x.shape), str(x.dtype).removeprefix("torch.")] for name, x in own.items()}
    taken: dict[str, Tensor] = {}
    for name, (shape, dtype) in from_first(lambda: described).items():
        taken[name] = own[name].cpu() if is_first() else torch.empty(shape, dtype=getattr(torch, dtype))
        tensor_from_first(taken[name])
    if not is_first():
        load_moments(optimizer, taken)


@torch.no_grad()
def average_statistics(model: nn.Module, *weights: Mapping[str, Tensor]) -> None:
    """Running means and variances of batch norm in training: each process saw its share, all go on with the mean.

    Args:
        model: says which.
        weights: the state dicts that have them.
    """
    if place().world == 1:
        return
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None:
            for values in weights:
                for statistic in (values[f"{name}.running_mean"], values[f"{name}.running_var"]):
                    sum_over_all(statistic)
                    statistic.div_(place().world)
