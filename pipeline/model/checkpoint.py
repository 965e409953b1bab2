"""A trained model as a folder: model.safetensors and model.json, all that is needed to classify.

A checkpoint is written beside its place and renamed into it. A replaced one is first renamed aside, to
`.NAME.old`, which `load` reads where a killed process left no other: at every moment one of the two is whole.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import math
import shutil
import tempfile
from argparse import ArgumentError
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch
from jsonargparse import ArgumentParser
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config import Config
from pipeline.disk import refusal, refuse_foreign, sync
from pipeline.errors import CheckpointError, UserError
from pipeline.model.classifier import Classifier, build_classifier
from pipeline.model.readings import READINGS

FORMAT = 2
TENSORS = "model.safetensors"
CARD = "model.json"
FILES = (TENSORS, CARD)


@dataclass(frozen=True)
class Card:
    """What model.json holds.

    Attributes:
        config: the resolved configuration (`pipeline.config.to_dict`): architecture, preprocessing, sampling.
        classes: class names in the order of the logits, the only place they come from; empty for numbers.
        split: digest of the split, and the content digests of the train, val and test clips.
        metrics: what was measured; a number that is not finite is stored as null.
        versions: of the libraries it was trained with.
        extra: anything else worth keeping.
        format: version of this layout.
    """

    config: dict[str, Any]
    classes: list[str]
    split: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def save(folder: str | Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write the checkpoint, replacing the one that may be there as a whole.

    Args:
        folder: its place.
        weights: the model's state dict.
        card: the rest.

    Raises:
        CheckpointError: the folder holds other things than a checkpoint, or cannot be written.
    """
    folder = _named(Path(folder))
    try:
        refuse_foreign(folder, (TENSORS, CARD, READINGS), "a checkpoint", CheckpointError)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.new-*"):
            shutil.rmtree(left, ignore_errors=True)  # of a save that was killed
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
        try:
            _write(new, weights, card)
            _take_over_readings(folder, new)
            _replace(folder, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot write the checkpoint {refusal(error)}") from error


def load(folder: str | Path) -> tuple[Classifier, Card]:
    """Read a checkpoint: the model on the CPU in evaluation mode, and its card.

    Raises:
        CheckpointError: the folder or a file is missing, is damaged, is of another format, or does not fit.
    """
    place = _find(Path(folder))
    card, sha256 = _read_card(place / CARD)
    try:
        config = config_of(card)
        # The random start weights are overwritten below; drawing them must not disturb the caller's seed.
        with torch.random.fork_rng(devices=[]):
            model = build_classifier(config, len(card.classes), load=False)
    except CheckpointError as error:
        raise CheckpointError(f"{place / CARD}: {error}") from error
    except UserError as error:
        raise CheckpointError(f"{place / CARD}: its config cannot be built: {error}") from error
    _fill(model, _read_tensors(place / TENSORS), place / TENSORS)
    _check_bits(place / TENSORS, sha256)
    return model.eval(), card


def check(folder: str | Path) -> None:
    """Whether the files of a checkpoint are whole, without building its model.

    Raises:
        CheckpointError: the folder or a file is missing or damaged.
    """
    place = _find(Path(folder))
    _check_bits(place / TENSORS, _read_card(place / CARD)[1])


def read_card(folder: str | Path) -> Card:
    """The card alone, without the model.

    Raises:
        CheckpointError: the folder or a file is missing, or the card is damaged.
    """
    return _read_card(_find(Path(folder)) / CARD)[0]


def digest(folder: str | Path) -> str:
    """Sha256 (hex) of model.safetensors followed by model.json: names this very model in every result.

    Raises:
        CheckpointError: the folder or a file is missing.
    """
    place = _find(Path(folder))
    return _sha256(place / TENSORS, place / CARD)


def contents(folder: str | Path) -> dict[str, bytes]:
    """The two files as they are, by name; written to another folder they are the same checkpoint.

    Raises:
        CheckpointError: the folder or a file is missing.
    """
    place = _find(Path(folder))
    return {name: (place / name).read_bytes() for name in FILES}


def config_from_dict(nested: dict[str, Any]) -> Config:
    """The inverse of `pipeline.config.to_dict`, with the same checks as the command line.

    Keys that are missing take their defaults.

    Raises:
        CheckpointError: an unknown key, or a value of the wrong type or range.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        parser.parse_object(nested)
        return _construct(Config, nested)
    except (ArgumentError, UserError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"config does not fit this version: {' '.join(str(error).split())}") from error


def _construct(kind: type[Any], values: Any) -> Any:
    """A dataclass from checked values as they are: the parser itself would read the text "null" as None."""
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__} is '{values}', not a section")
    hints = get_type_hints(kind)
    return kind(
        **{
            key: _construct(hints[key], value) if dataclasses.is_dataclass(hints[key]) else value
            for key, value in values.items()
        }
    )


def config_of(card: Card) -> Config:
    """The configuration a checkpoint was trained with."""
    return config_from_dict(card.config)


def temperature_of(card: Card) -> float:
    """By what the logits are divided before the softmax, see `report.calibration`; 1 where it was never fitted.

    Raises:
        CheckpointError: no number above 0.
    """
    found = card.extra.get("calibration", {})
    temperature = found.get("temperature", 1.0) if isinstance(found, dict) else None
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise CheckpointError(f"{CARD} is damaged (its temperature is {temperature!r}, not a number above 0)")
    return float(temperature)


def _write(new: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Both files, on the disk before they get their name."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(tensors, new / TENSORS)
    described = dataclasses.asdict(card) | {"sha256": _sha256(new / TENSORS)}
    text = json.dumps(_finite(described), indent=2, ensure_ascii=False, allow_nan=False)
    (new / CARD).write_text(text + "\n", encoding="utf-8")
    new.chmod(0o755)  # 0o700 and 0o600, as they are made, would keep a served model from its server
    (new / TENSORS).chmod(0o644)
    for path in (new / TENSORS, new / CARD, new):
        sync(path)


def _take_over_readings(folder: Path, new: Path) -> None:
    """Other words about the same weights are the same model: the readings of its test split stay with it."""
    old = folder / READINGS
    with suppress(CheckpointError):
        if old.is_file() and _read_card(folder / CARD)[1] == _read_card(new / CARD)[1]:
            shutil.copy(old, new / READINGS)


def _replace(folder: Path, new: Path) -> None:
    aside = _aside(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _named(folder: Path) -> Path:
    """The folder under its own name where it was given as "." or "..": its neighbours are named after it."""
    return folder.resolve() if folder.name in ("", "..") else folder


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _find(folder: Path) -> Path:
    """The folder, or the one it was replaced from where the replacement was killed half way."""
    folder = _named(folder)
    place = folder if folder.exists() else _aside(folder)
    if not place.is_dir():
        what = "is a file; a checkpoint is a folder" if folder.is_file() else "no such checkpoint folder"
        raise CheckpointError(f"{folder}: {what}")
    for name in (CARD, TENSORS):
        if not (place / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing, so this is no checkpoint")
    return place


def _read_card(path: Path) -> tuple[Card, str]:
    """The card, and the sha256 of its tensors; empty in a checkpoint from before there was one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if not isinstance(found, dict) or "format" not in found:
        raise CheckpointError(f"{path} is damaged (it is not a checkpoint's card)")
    if found["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {found['format']}; this version reads format {FORMAT}: train again")
    types = {"config": dict, "classes": list, "split": dict, "metrics": dict, "versions": dict, "extra": dict}
    for key, wanted in types.items():
        if not isinstance(found.get(key), wanted):
            raise CheckpointError(f"{path} is damaged ('{key}' is missing or no {wanted.__name__})")
    numeric = found["config"].get("task", "label").endswith("regression")
    if not (found["classes"] or numeric) or not all(isinstance(name, str) for name in found["classes"]):
        raise CheckpointError(f"{path} is damaged ('classes' must be a list of names)")
    return Card(**{key: found[key] for key in (*types, "format")}), str(found.get("sha256", ""))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error


def _check_bits(path: Path, sha256: str) -> None:
    """Safetensors does not notice a flipped bit, and a model with one answers all the same."""
    if sha256 and _sha256(path) != sha256:
        raise CheckpointError(f"{path} is damaged (its checksum is not the one in {CARD})")


def _sha256(*paths: Path) -> str:
    """Hex, of the files one after the other."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()


def _fill(model: Classifier, tensors: dict[str, Tensor], path: Path) -> None:
    """Strict copy: every tensor of the model, with its shape and type, and no other."""
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise CheckpointError(f"{path} does not fit its card: it has no '{name}'")
        if name not in wanted:
            raise CheckpointError(f"{path} does not fit its card: '{name}' is not part of the model")
        found, expected = (
            (tuple(tensors[name].shape), tensors[name].dtype),
            (tuple(wanted[name].shape), wanted[name].dtype),
        )
        if found != expected:
            raise CheckpointError(f"{path} does not fit its card: '{name}' is {found}, the model has {expected}")
    model.load_state_dict(tensors)


def _finite(value: Any) -> Any:
    """JSON has no word for NaN and infinity: null."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
