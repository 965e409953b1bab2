"""The convolutional trunk of every encoder: one of ours, or a torchvision CNN without its classifier.

Every family of torchvision ends in another way (fc, classifier, a 1x1 convolution, pooling inside or outside
`features`), so the place to cut is found from the shapes: the last 4-D map that still has height and width.
"""

from __future__ import annotations

import copy
import difflib
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.feature_extraction import NodePathTracer

from pipeline.errors import ConfigError
from pipeline.model.compact import Compact
from pipeline.model.lite0 import Lite0

OWN: dict[str, type[Compact | Lite0]] = {"compact": Compact, "efficientnet_lite0": Lite0}
CLASSIFIERS = ("classifier", "fc")
TRANSFORMERS = ("vit_", "swin", "maxvit")
OTHER_TASKS = ("detection", "segmentation", "video", "optical_flow", "quantization")
# These two rescale ImageNet-normalised input once more, which torchvision only does for pretrained weights.
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": False},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": False},
}
DROPPING = ("efficientnet_", "convnext_")
"""Encoders of these names have residual blocks that training can leave out."""
TRACE_SIZE = 299  # the largest input any of the families was made for, so that every map has a size above 1


def encoder_names() -> list[str]:
    """Every name that `encoder.name` accepts, ours first."""
    found = list_models(module=torchvision.models)
    return [*OWN, *(name for name in found if not name.startswith(TRANSFORMERS))]


def check_name(name: str) -> None:
    """Raises ConfigError, with the reason or the nearest names, for a name that is not an encoder's."""
    if name in encoder_names():
        return
    if name.startswith(TRANSFORMERS) and name in list_models():
        raise ConfigError(f"encoder.name is '{name}', a vision transformer; choose a CNN, such as resnet18")
    for task in OTHER_TASKS:
        if name in list_models(module=getattr(torchvision.models, task)):
            raise ConfigError(f"encoder.name is '{name}', a {task} model; choose a classification CNN")
    near = difflib.get_close_matches(name, encoder_names(), n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else "choose compact, efficientnet_lite0 or a torchvision CNN"
    raise ConfigError(f"encoder.name is '{name}', which is no encoder; {hint}")


def check_stochastic_depth(name: str) -> None:
    """Raises ConfigError for an encoder that has no blocks to leave out."""
    if not name.startswith(DROPPING):
        raise ConfigError(
            f"encoder.stochastic_depth is for {' and '.join(f'{family}*' for family in DROPPING)}; "
            f"encoder.name is {name}: set it to 0"
        )


def build_trunk(name: str, stochastic_depth: float = 0.0) -> tuple[nn.Module, int]:
    """The trunk of the encoder `name` with random weights, and the channels of its map.

    It maps normalised frames (N, 3, S, S) to (N, C, h, w); the classifier's weights are not in it.

    Args:
        name: as in `encoder_names`.
        stochastic_depth: chance that a residual block is left out in training; it grows linearly with depth, from 0 to
            nearly this.

    Raises:
        ConfigError: the name is not an encoder's, with the reason or the nearest names; or this one has no residual
            blocks that can be left out.
    """
    check_name(name)
    if stochastic_depth:
        check_stochastic_depth(name)
    if name in OWN:
        own = Lite0(stochastic_depth=stochastic_depth) if stochastic_depth else OWN[name]()
        return own, own.channels
    options = dict(OPTIONS.get(name, {}))
    if name.startswith(DROPPING):  # torchvision's own default is not 0
        options["stochastic_depth_prob"] = stochastic_depth
    module, paths = _trace(get_model(name, weights=None, **options))
    last, channels = _last_map(module, paths)
    _cut(module, last)
    return module, channels


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in 0..255, that an encoder's weights were made for."""
    if name in OWN:
        return OWN[name].mean, OWN[name].std
    preset = get_model_weights(name).DEFAULT.transforms()  # type: ignore[attr-defined]
    return tuple(255 * value for value in preset.mean), tuple(255 * value for value in preset.std)


def check_frame_size(trunk: nn.Module, name: str, size: int) -> None:
    """Raises ConfigError where frames of `size` pixels are too small for the trunk's strides and kernels."""
    try:
        shadow(trunk).eval()(torch.empty(1, 3, size, size, device="meta"))
    except RuntimeError as error:
        raise ConfigError(f"video.size is {size}, too small for encoder {name}; use 96 or more") from error


def shadow(module: nn.Module) -> nn.Module:
    """A copy without memory (device "meta"): computes shapes, no numbers."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor.to("meta") for tensor in tensors})


def _trace(model: nn.Module) -> tuple[fx.GraphModule, dict[str, str]]:
    """The model as a graph, and the module path of each node by its name.

    Dropout, batch norm and stochastic depth stay modules, so they follow .train() and .eval().
    """
    tracer = NodePathTracer(leaf_modules=_leaf_modules())
    module = fx.GraphModule(model, tracer.trace(model))
    return module, {node.name: path for node, path in tracer.node_to_qualname.items()}


def _leaf_modules() -> list[type[nn.Module]]:
    """The layers of torchvision, which decide for themselves what they do in training."""
    found = vars(torchvision.ops).values()
    return [item for item in found if isinstance(item, type) and issubclass(item, nn.Module)]


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the shape of everything that is a tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def _last_map(module: fx.GraphModule, paths: dict[str, str]) -> tuple[fx.Node, int]:
    """The last node, before any classifier, whose result is a map with a size above 1; and its channels."""
    interpreter = _Shapes(shadow(module).eval())  # type: ignore[arg-type]
    interpreter.run(torch.empty(1, 3, TRACE_SIZE, TRACE_SIZE, device="meta"))
    chosen: fx.Node | None = None
    channels = 0
    for node in module.graph.nodes:
        if paths.get(node.name, "").split(".")[0] in CLASSIFIERS:
            break
        shape = interpreter.shapes.get(node.name, ())
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        # AlexNet and VGG pool to a fixed grid, which stretches a small map: the map before it is the one.
        if len(shape) == 4 and min(shape[2:]) > 1 and not isinstance(layer, nn.AdaptiveAvgPool2d):
            chosen, channels = node, shape[1]
    if chosen is None:
        raise RuntimeError("no feature map found in the traced graph")
    return chosen, channels


def _cut(module: fx.GraphModule, last: fx.Node) -> None:
    """Make the graph end at the node `last`, and drop everything that only came after it."""
    output = next(node for node in module.graph.nodes if node.op == "output")
    output.args = (last,)
    module.graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
