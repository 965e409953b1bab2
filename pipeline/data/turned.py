"""Training views that may show another class than their clip: its mirror image, and the clip played backwards.

A hand that moves to the left moves to the right in the mirror, and in time turned round. Which views are turned is a
function of their seed alone, so that a label needs no look at the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.config import AugmentationConfig
from pipeline.data.clip_file import ClipFile, Turn
from pipeline.data.targets import UNLABELLED, Target
from pipeline.errors import ConfigError

_DRAW = 1
"""Makes the numbers drawn here others than those that `clips.load_clip` draws from the same seed."""


def turn_of(view: int | None, augmentation: AugmentationConfig) -> Turn:
    """How a view is turned.

    Args:
        view: its seed; None, the evaluation view, is never turned.
        augmentation: `flip`, `flip_labels` and `reverse` are read. Without `flip_labels` a mirror image changes no
            label, is drawn with everything else in `transforms`, and is not told here.
    """
    if view is None or not (augmentation.flip_labels or augmentation.reverse):
        return Turn()
    mirror, time = np.random.default_rng([view, _DRAW]).random(2)
    return Turn(bool(augmentation.flip_labels) and bool(mirror < augmentation.flip), bool(time < augmentation.reverse))


def with_turned(files: Sequence[ClipFile], augmentation: AugmentationConfig, classes: Sequence[str]) -> list[ClipFile]:
    """Files that know what they are to be taken for when they are turned.

    Raises:
        ConfigError: `flip_labels` or `reverse_labels` name a class that is none of `classes`.
    """
    mirrored = exchanged(augmentation.flip_labels, classes, "augmentation.flip_labels")
    backwards = exchanged(augmentation.reverse_labels, classes, "augmentation.reverse_labels")

    def turned(label: int) -> dict[Turn, Target]:
        found = {
            Turn(True, False): mirrored[label],
            Turn(False, True): backwards[label],
            Turn(True, True): backwards[mirrored[label]],
        }
        return {turn: target for turn, target in found.items() if target != label}

    return [
        replace(file, turned=turned(file.target))
        if isinstance(file.target, int) and file.target != UNLABELLED
        else file
        for file in files
    ]


def seen_as(file: ClipFile, view: int | None, augmentation: AugmentationConfig) -> Target:
    """What a view of a file of `with_turned` is to be taken for."""
    return file.turned.get(turn_of(view, augmentation), file.target)


def exchanged(pairs: Sequence[Sequence[str]], classes: Sequence[str], option: str) -> list[int]:
    """For each of `classes` the number of the class that it becomes: its partner in `pairs`, or itself.

    Raises:
        ConfigError: a name that is none of `classes`; `option` says where it was given.
    """
    partners = {name: other for first, second in pairs for name, other in ((first, second), (second, first))}
    unknown = sorted(set(partners) - set(classes))
    if unknown:
        raise ConfigError(f"{option}: there is no class '{unknown[0]}'; the classes are {', '.join(classes)}")
    return [classes.index(partners.get(name, name)) for name in classes]
