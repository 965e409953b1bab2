"""Which device, which precision, how many workers."""

from __future__ import annotations

import torch

from pipeline.errors import ConfigError
from pipeline.process import usable_cores
from pipeline.stages.distributed import started


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one; anything else is taken by its PyTorch name. Of several processes on a
    machine each has a GPU of its own.

    Raises:
        ConfigError: the name is not a device, or this machine has no such device.
    """
    if started().world > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        return _own_gpu()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"device '{name}' cannot be used here: {reason}") from None
    return device


def _own_gpu() -> torch.device:
    here = started()
    if here.local_world > torch.cuda.device_count():
        raise ConfigError(
            f"{here.local_world} processes on a machine with {torch.cuda.device_count()} GPUs: each needs its own; "
            "start torchrun with --nproc_per_node gpu"
        )
    device = torch.device("cuda", here.local_rank)
    torch.cuda.set_device(device)
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of mixed precision; float32 means none."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def choose_workers(workers: int) -> int:
    """-1: one decoding process per usable core, at most 8; the processes that train on one machine divide its cores."""
    return workers if workers >= 0 else min(_own_cores(), 8)


def shares_cores(device: torch.device, workers: int) -> bool:
    """Whether decoding keeps all cores busy that a model on this device needs. Side by side, each layer's threads would
    wait for the one that a decoder interrupted.
    """
    return device.type == "cpu" and workers >= _own_cores()


def _own_cores() -> int:
    return max(1, usable_cores() // started().local_world)
