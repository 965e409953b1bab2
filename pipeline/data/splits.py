"""Who learns from which clip: training, validation and test, by source group, stratified, seeded.

The unit that is given to a split is the leak-proof one: clips of one source group, and clips with the same
content, stay together. Clips cut from one recording share people, place and light; scoring a model on the
siblings of its training clips measures memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import DataConfig
from pipeline.data.layouts import SPLITS
from pipeline.data.strata import class_counts, class_names, extremes, seconds_of_classes, strata
from pipeline.data.target_text import targets
from pipeline.errors import DataError

LARGEST_SHARE = 0.8
"""Part of the validation or test clips that one unit may be: numbers from a single source say little about others."""


def assign(frame: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """Give every row of a catalog a split.

    Splits that the catalog gives are kept: units without one are added to training, and to test where no row
    is given to test; where no row is given to validation, it is cut out of the training units. The result
    depends on groups, contents, labels and `data.split_seed`, not on the order of the rows or where the files
    lie.

    Args:
        frame: a catalog (columns path, label, group, split, digest; with status, a label counts as present in
            training only through a clip that decodes).
        data: the shares `val` and `test`, and the seed.

    Returns:
        A copy with `split` filled for every row, those that failed as well, and `unit`, the name of the group
        of clips that stays together.

    Raises:
        DataError: one unit given to two splits (unless `data.allow_leak`), or fewer units than splits.
    """
    units = pd.Series(units_of(frame), index=frame.index, dtype="str")
    if data.allow_leak:
        units = _parted(frame, units)
    given = _given(frame, units)
    table = _Table(frame, units)
    shares = {"train": 1 - data.val - data.test, "val": data.val, "test": data.test}
    rng = np.random.default_rng(data.split_seed)
    chosen = dict(given)
    free = [name for name in table.names if name not in given]
    if not given:
        chosen = _divide(table, free, shares, rng)
    else:
        if free:
            test = {} if "test" in given.values() else {"test": data.test}
            if len(free) < 2:
                test = {}
            chosen |= _divide(table, free, {"train": 1 - data.test, **test}, rng)
        if "val" not in given.values() and data.val > 0:
            training = [name for name in table.names if chosen[name] == "train"]
            chosen |= _divide(table, training, {"train": shares["train"], "val": data.val}, rng)
    if "train" not in chosen.values():
        raise DataError("every clip is given to val or test; give some to train, or leave their split empty")
    return frame.assign(split=units.map(chosen).astype("str"), unit=units)


def units_of(frame: pd.DataFrame) -> list[str]:
    """A name per row: connected components of "same group" and "same content", named by their first group."""
    groups = [None if pd.isna(group) else str(group) for group in frame["group"]]
    contents = [str(content) or None for content in frame["digest"]]
    names = own_names(frame)
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    rows = []
    for group, content, name in zip(groups, contents, names, strict=True):
        # "a group" sorts before "content" and "file": the least node of a component is its best name.
        keys = (("a group", group), ("content", content))
        nodes = [(kind, key) for kind, key in keys if key is not None] or [("file", name)]
        for node in nodes[1:]:
            one, two = sorted((root(nodes[0]), root(node)))
            parent[two] = one
        rows.append(nodes[0])
    return [key if kind == "a group" else f"{kind} {key}" for kind, key in map(root, rows)]


def own_names(frame: pd.DataFrame) -> list[str]:
    """Each row's path below the folder that all rows share, so that moving a dataset changes nothing."""
    paths = [os.path.abspath(str(path)) for path in frame["path"]]
    base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    length = len(os.path.join(base, ""))
    return [path[length:].replace(os.sep, "/") for path in paths]


def _parted(frame: pd.DataFrame, units: pd.Series) -> pd.Series:
    """Units that are given to several splits, one part for each; clips without a split go with the first of them."""
    first = frame["split"].groupby(units).transform("first")
    several = frame["split"].groupby(units).transform("nunique") > 1
    return units.where(~several, units + " (" + frame["split"].fillna(first) + ")").astype("str")


def _given(frame: pd.DataFrame, units: pd.Series) -> dict[str, str]:
    """The split of each unit that the catalog gives one to."""
    rows = pd.DataFrame({"unit": units, "split": frame["split"], "path": frame["path"]}).dropna(subset="split")
    for unit, part in rows.groupby("unit"):
        if part["split"].nunique() > 1:
            examples = part.drop_duplicates("split")
            files = ", ".join(
                f"{path} in {split}" for path, split in zip(examples["path"], examples["split"], strict=True)
            )
            raise DataError(
                f"group '{unit}' is in two splits ({files}); give its clips, and their copies, to one,"
                " or let them leak with --data.allow_leak true"
            )
    return {str(unit): str(split) for unit, split in rows.groupby("unit")["split"].first().items()}


class _Table:
    """Clips per unit and label, and which of them decode.

    Attributes:
        names: units, sorted.
        counts, usable: int64 (units, labels), all clips and those with status "ok".
    """

    def __init__(self, frame: pd.DataFrame, units: pd.Series) -> None:
        self.names = sorted(set(units))
        row = units.map({name: index for index, name in enumerate(self.names)}).to_numpy(dtype=np.int64)
        labels, column = np.unique(strata(frame), return_inverse=True)
        decodes = (frame["status"] == "ok").to_numpy() if "status" in frame else np.ones(len(frame), dtype=bool)
        self.counts = np.zeros((len(self.names), len(labels)), dtype=np.int64)
        self.usable = np.zeros_like(self.counts)
        np.add.at(self.counts, (row, column), 1)
        np.add.at(self.usable, (row[decodes], column[decodes]), 1)

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """Positions of the named units."""
        return np.searchsorted(self.names, names)


def _divide(table: _Table, names: Sequence[str], shares: dict[str, float], rng: np.random.Generator) -> dict[str, str]:
    """Divide units between splits.

    Greedy stratification of groups (after Sechidis, Tsoumakas and Vlahavas 2011): units come in random order,
    the largest first, and each goes where it reduces the squared distance to the wanted counts most, per
    label and in all, measured in parts of what the split wants.

    Args:
        table: the clips of all units.
        names: the units to divide, in an order that does not depend on the rows.
        shares: weight of each split, training's above 0; those of weight 0 get nothing.

    Returns:
        {unit: split}. No split is empty, and a label keeps a training clip where its units allow that.
    """
    splits = [split for split in SPLITS if shares.get(split, 0) > 0]
    if len(names) < len(splits):
        raise DataError(
            f"{len(names)} group(s) of clips cannot fill {', '.join(splits)}; add clips from other sources,"
            " or set data.val or data.test to 0"
        )
    rows = table.rows(names)
    clips = table.counts[rows]
    vectors = np.concatenate([clips, clips.sum(axis=1, keepdims=True)], axis=1).astype(np.float64)
    weights = np.array([shares[split] for split in splits])
    target = np.outer(weights / weights.sum(), vectors.sum(axis=0))
    scale = np.where(target > 0, target, 1.0)
    need = target.copy()
    order = rng.permutation(len(names))
    order = order[np.argsort(-vectors[order, -1], kind="stable")]
    place = np.empty(len(names), dtype=np.int64)
    crowded = target[1:, -1] >= 2 * np.median(vectors[:, -1])  # the split has room for more than one usual unit
    for index in order:
        unit = vectors[index]
        gain = (unit * (2 * need - unit) / scale).sum(axis=1)
        gain[1:][crowded & (unit[-1] > LARGEST_SHARE * target[1:, -1])] = -np.inf
        place[index] = int(np.argmax(gain))
        need[place[index]] -= unit
    _fill_empty(place, clips, len(splits))
    _keep_labels_in_training(place, table.usable[rows])
    return {name: splits[index] for name, index in zip(names, place, strict=True)}


def _fill_empty(place: np.ndarray, clips: np.ndarray, splits: int) -> None:
    """Give a split that got no unit the smallest one of the split that has most."""
    for empty in range(splits):
        if not (place == empty).any():
            donor = int(np.argmax(np.bincount(place, minlength=splits)))
            candidates = np.flatnonzero(place == donor)
            place[candidates[np.argmin(clips[candidates].sum(axis=1))]] = empty


def _keep_labels_in_training(place: np.ndarray, usable: np.ndarray) -> None:
    """Bring each label that training lacks back into it (split 0), by the smallest unit that has it.

    A split that would be left empty gets in exchange a training unit whose labels training keeps without it, else a
    unit of a third split that has several.
    """
    for label in range(usable.shape[1]):
        held = np.flatnonzero(usable[:, label])
        if not len(held) or (place[held] == 0).any():
            continue
        wanted = held[np.argmin(usable[held].sum(axis=1))]
        split = place[wanted]
        if (place == split).sum() > 1:
            place[wanted] = 0
            continue
        training = np.flatnonzero(place == 0)
        left = usable[training].sum(axis=0) + usable[wanted] - usable[training]
        needed = (usable[training].sum(axis=0) + usable[wanted]) > 0
        spare = training[(left[:, needed] > 0).all(axis=1)]
        if not len(spare):
            spare = np.flatnonzero((place != 0) & (place != split) & (np.bincount(place)[place] > 1))
        if len(spare):
            place[wanted], place[spare[np.argmin(usable[spare].sum(axis=1))]] = 0, split


def split_digest(frame: pd.DataFrame) -> str:
    """sha256 in hex of who is in which split: (content, label or target, split) of every row in any order.

    A file without content to read counts by its path below the folder that all rows share.
    """
    contents = [str(content) or name for content, name in zip(frame["clip"], own_names(frame), strict=True)]
    rows = sorted(
        [content, text, str(split)]
        for content, text, split in zip(contents, targets(frame), frame["split"], strict=True)
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def report(frame: pd.DataFrame) -> dict[str, Any]:
    """What the splits hold, of an assigned catalog; clips that do not decode are not counted.

    Returns:
        counts: {split: {class: clips in which it occurs}}; units: {split: units}; missing: {split: [classes it
        lacks]}, without those splits that lack none or have no clip at all. Where classes change over time also
        seconds: {split: {class: seconds}}; where clips have values, values: {split: {clips, min, mean, max}}.
    """
    decoded = frame[frame["status"] == "ok"] if "status" in frame else frame
    classes = class_names(frame)
    parts = {split: decoded[decoded["split"] == split] for split in SPLITS}
    counts = {split: class_counts(part, classes) for split, part in parts.items()}
    units = {split: int(part["unit"].nunique()) for split, part in parts.items()}
    missing = {split: [name for name in classes if not counts[split][name]] for split in SPLITS if units[split]}
    found = {
        "counts": counts,
        "units": units,
        "missing": {split: lacks for split, lacks in missing.items() if lacks},
        "seconds": {split: total for split, part in parts.items() if (total := seconds_of_classes(part, classes))},
        "values": {split: numbers for split, part in parts.items() if (numbers := extremes(part))},
    }
    return {name: value for name, value in found.items() if value or name in ("counts", "units", "missing")}
