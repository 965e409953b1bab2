"""Batch norm folded into the convolution before it: the same function of the frames in fewer passes over the maps.

For inference alone. The folded weights are derived: no state dict, parameter list or optimiser ever holds them.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import StochasticDepth


class Folded:
    """A trunk's copy for inference, made when it is first needed and made anew when a weight has changed.

    How the norms fold depends on the trunk's structure and is found here once; making the copy is arithmetic.

    Args:
        trunk: the CNN, in evaluation mode.
        dtype: of the copy's weights; None: that of the trunk.
    """

    def __init__(self, trunk: nn.Module, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self._graph, self._pairs = fold_graph(trunk)
        self._layers = list(trunk.modules())
        # the copy, the stamp it was made at, and the stamped tensors: held, so that no other gets their addresses
        self._made: tuple[nn.Module, list[tuple[int, int, object]], list[Tensor]] | None = None

    def of(self, trunk: nn.Module) -> nn.Module:
        """The copy for the trunk's weights as they are now, or the trunk itself while an optimiser works on it.

        Weights with a gradient wait for an update, and a fused optimiser updates them without a trace.
        """
        weights = [x for layer in self._layers for x in layer._parameters.values() if x is not None]
        if any(weight.grad is not None for weight in weights):
            self.drop()
            return trunk
        buffers = [x for layer in self._layers for x in layer._buffers.values() if x is not None]
        sources = [*weights, *buffers]
        stamp = [(id(x), x.data_ptr(), _version(x)) for x in sources]
        made = self._made
        if made is None or made[1] != stamp:
            made = self._made = (fold(trunk, self._graph, self._pairs, self.dtype), stamp, sources)
        return made[0]

    def drop(self) -> None:
        """Forget the copy: the weights are about to change."""
        self._made = None


def fold_graph(trunk: nn.Module) -> tuple[fx.Graph, list[tuple[str, str]]]:
    """A trunk's graph without the batch norms that can be folded, and those as (convolution, norm) module paths.

    A norm can be folded when all it reads is a convolution that nothing else reads, and both run once.
    """
    graph = trace(trunk)
    layers = {node: trunk.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    calls = [id(layer) for layer in layers.values()]
    pairs = []
    for node, layer in layers.items():
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        found = layers.get(before)
        folds = isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and isinstance(found, nn.Conv2d)
        if folds and calls.count(id(layer)) == calls.count(id(found)) == 1:
            pairs.append((str(before.target), str(node.target)))
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    return graph, pairs


def trace(trunk: nn.Module) -> fx.Graph:
    """A trunk's graph down to single layers, in the mode that the trunk is in."""
    return _Tracer().trace(trunk)


def fold(
    trunk: nn.Module, graph: fx.Graph, pairs: list[tuple[str, str]], dtype: torch.dtype | None = None
) -> nn.Module:
    """What `fold_graph` found, with the trunk's weights: a copy without gradients, channels last.

    The products are formed in float64 and rounded once.
    """
    with torch.inference_mode(False), torch.no_grad():
        folded = copy.deepcopy(fx.GraphModule(trunk, copy.deepcopy(graph))).eval().requires_grad_(False)
        for conv_path, norm_path in pairs:
            conv, norm = folded.get_submodule(conv_path), trunk.get_submodule(norm_path)
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            conv.weight, conv.bias = _fused(conv, norm)
        return (folded if dtype is None else folded.to(dtype)).to(memory_format=torch.channels_last)


class _Tracer(fx.Tracer):
    """Down to single layers. Our convolutions pad by their input's size, which a graph cannot look into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | StochasticDepth) or super().is_leaf_module(m, module_qualified_name)


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    exact = [
        None if x is None else x.detach().cpu().double()  # not every device has float64
        for x in (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    ]
    weight, bias = fuse_conv_bn_weights(*exact[:4], norm.eps, *exact[4:])  # type: ignore[arg-type, call-arg]
    return nn.Parameter(weight.to(conv.weight), False), nn.Parameter(bias.to(conv.weight), False)


def _version(tensor: Tensor) -> object:
    """Changes with every write; a tensor made under inference_mode keeps no count, so it never equals itself."""
    return object() if tensor.is_inference() else tensor._version
