"""The most memory that something took: of the GPU where there is one, else of this process."""

from __future__ import annotations

from pathlib import Path

import torch

MEGABYTE = 1e6


def reset(device: torch.device) -> None:
    """Forget what was taken before. Linux alone can do that for a process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> float | None:
    """MB since `reset`: allocated on the GPU, or resident in this process without its decoding workers; None where the
    system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024 / MEGABYTE
