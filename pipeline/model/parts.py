"""A trunk of which only the last blocks learn, in two parts: what is fixed is folded, and no gradient looks into it.

Both parts share the trunk's modules, so that there is one set of weights, and no state dict or optimiser knows of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from pipeline.model.folding import Folded, trace


class Parts:
    """The fixed and the learning part of a trunk.

    Args:
        fixed: maps frames to the maps that the learning part reads; in evaluation mode, without gradients.
        learning: maps those to the trunk's last map; it is in whatever mode the trunk is in.
    """

    def __init__(self, fixed: nn.Module, learning: nn.Module) -> None:
        self._fixed, self._learning = fixed, learning
        self._folded = Folded(fixed)

    def __call__(self, frames: Tensor, chunk: int) -> Tensor:
        """The trunk's last map of frames (N, 3, S, S) float; `chunk` of them at a time go through the fixed part."""
        with torch.no_grad():
            fixed = self._folded.of(self._fixed)
            maps = torch.cat([fixed(part) for part in frames.split(chunk)])
        result: Tensor = self._learning(maps)
        return result

    def drop(self) -> None:
        """Forget the folded copy: the weights may have changed without a trace."""
        self._folded.drop()


def in_parts(trunk: nn.Module, paths: Sequence[str]) -> Parts | None:
    """Cut a trunk behind its fixed modules.

    Args:
        trunk: traced in the mode it is in; of the modules at `paths`, that must be evaluation.
        paths: of the modules that stay as they are, with all in them.

    Returns:
        None where the learning part reads more than one value of the fixed one, as of a block cut in the middle.
    """
    graph = trace(trunk)
    nodes = _fixed_nodes(graph, [f"{path}." for path in paths])
    crossing = [node for node in nodes if any(user not in nodes for user in node.users)]
    if len(crossing) != 1 or crossing[0].op == "placeholder":
        return None
    fixed = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        env[node] = fixed.node_copy(node, env.__getitem__)
    fixed.output(env[crossing[0]])
    learning = fx.Graph()
    env = {crossing[0]: learning.placeholder("maps")}
    for node in graph.nodes:
        if node not in nodes:
            env[node] = learning.node_copy(node, env.__getitem__)
    return Parts(fx.GraphModule(trunk, fixed).eval(), fx.GraphModule(trunk, learning))


def _fixed_nodes(graph: fx.Graph, prefixes: Sequence[str]) -> dict[fx.Node, None]:
    """What depends on the frames and on fixed weights alone, in order; functions between them included."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        own = node.op in ("placeholder", "call_function", "call_method")
        own = own or any(f"{node.target}.".startswith(prefix) for prefix in prefixes)
        if own and node.op != "output" and all(before in found for before in node.all_input_nodes):
            found[node] = None
    return found
