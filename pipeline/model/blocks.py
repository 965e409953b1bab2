"""The blocks of a trunk, in the order in which frames go through them: what fine-tuning frees, and how fast it learns.

Blocks are found from the names of the weights: what torchvision numbers, or names as a stage, is one.
"""

from __future__ import annotations

from torch import nn

STAGES = ("features", "trunk_output")
"""Modules of torchvision whose parts are its blocks, whatever they are called."""


def blocks(trunk: nn.Module) -> list[list[str]]:
    """The paths of the modules that make up each block; norms belong to the convolution before them.

    Returns:
        From the block that reads the frames to the one that writes the feature map.
    """
    sizes: dict[str, int] = {}  # the most dimensions of any of a module's weights
    for name, parameter in trunk.named_parameters():
        module = _module_of(name)
        sizes[module] = max(sizes.get(module, 0), parameter.ndim)
    found: list[list[str]] = []
    for module, size in sizes.items():
        if found and size <= 1:
            found[-1].append(module)
        else:
            found.append([module])
    return found


def depths(trunk: nn.Module) -> dict[str, int]:
    """Each parameter's name to how many blocks lie between its own and the feature map."""
    found = blocks(trunk)
    depth = {module: len(found) - 1 - place for place, block in enumerate(found) for module in block}
    return {name: depth[_module_of(name)] for name, _ in trunk.named_parameters()}


def _module_of(parameter: str) -> str:
    first, second, *_ = parameter.split(".")
    return f"{first}.{second}" if first in STAGES or second.isdigit() else first
