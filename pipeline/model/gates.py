"""What the gates of a recurrence do at one step: as cheap as the step, for looking on while a stream runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.model.classifier import Classifier, State
from pipeline.model.inside import named_layers


@torch.no_grad()
def step_with_gates(
    model: Classifier, features: dict[str, Tensor], state: State | None
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """`Classifier.step`, and the mean of each gate over its units.

    Args:
        model: in evaluation mode.
        features: stream name -> (B, D).
        state: as of `step`.

    Returns:
        Output and state of `step`; per gate (B), named "layer0 forget", with the stream before it where there are
        several. Empty for a recurrence without gates.
    """
    calls: list[tuple[str, Any, Any]] = []
    handles = []
    for stream in model.streams:
        prefix = f"{stream} " if len(model.streams) > 1 else ""
        for name, layer in named_layers(model.branches[stream].recurrent).items():  # type: ignore[arg-type]

            def note(module: Any, given: Any, name: str = prefix + name) -> None:
                calls.append((name, module, given))

            handles.append(layer.register_forward_pre_hook(note))
    try:
        output, after = model.step(features, state)
    finally:
        for handle in handles:
            handle.remove()
    means = {}
    for name, layer, given in calls:
        for gate, values in layer.gates(*given).items():
            if gate != "cell":  # the candidate is no gate
                means[f"{name} {gate}"] = values.flatten(1).mean(1)
    return output, after, means
