"""Folds of a cross-validation: every clip is tested once, by a model that learned from no clip of its group."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.config import DataConfig
from pipeline.config.data import LEAVE_ONE_GROUP_OUT
from pipeline.data.duplicates import look_alikes
from pipeline.data.splits import assign, units_of
from pipeline.data.strata import class_counts, class_names, strata
from pipeline.errors import ConfigError, DataError


def assign_fold(frame: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """The split of one fold: its clips are the test, validation is cut out of the other units.

    Args:
        frame: a catalog, as of `splits.assign`; splits that it gives are not used.
        data: `folds` and `fold`, the share `val` of the clips that are not tested, and the seed.

    Returns:
        A copy with `split` filled for every row, and `unit`.

    Raises:
        ConfigError: no fold is named, or there are not so many.
        DataError: the clips do not allow these folds.
    """
    joined = join_alike(frame)
    folds = fold_of(joined, data)
    if not 1 <= data.fold <= folds.max():
        raise ConfigError(
            f"data.folds {data.folds} divides the clips into {folds.max()} folds; name one of them with data.fold "
            f"(now {data.fold}), or train all with video-lstm train"
        )
    # a fold's validation clips are drawn by a seed of its own, and by unit, as its test clips were
    seed = int(np.random.SeedSequence([data.split_seed, data.fold]).generate_state(1)[0])
    given = joined.assign(group=joined["unit"], split=np.where(folds == data.fold, "test", "train"))
    split = assign(given, replace(data, test=0.0, split_seed=seed, folds=0, fold=0))
    return split.assign(group=joined["group"])


def join_alike(frame: pd.DataFrame) -> pd.DataFrame:
    """A catalog with its column `unit`: what must not be divided is one source group, one content, or looks alike."""
    units = pd.Series(units_of(frame), index=frame.index, dtype="str")
    of = dict(zip(frame["path"], units, strict=True))
    joined: dict[str, str] = {}

    def root(unit: str) -> str:
        while unit in joined:
            unit = joined[unit]
        return unit

    for pair in look_alikes(frame.assign(split=units)):
        one, other = sorted((root(of[pair.path]), root(of[pair.other])))
        if one != other:
            joined[other] = one
    return frame.assign(unit=units.map(root).astype("str"))


def fold_of(table: pd.DataFrame, data: DataConfig) -> np.ndarray:
    """The fold in which each clip is tested; a function of units, labels and seed, not of the rows' order.

    Units come in random order and go whole to the fold that keeps the classes most even (scikit-learn's
    `StratifiedGroupKFold`); leaving one group out, each unit is a fold, in the order of their names. Units of which no
    clip decodes join the folds with the fewest clips, so that no fold consists of them.

    Args:
        table: a catalog with `unit`.
        data: `folds`, `split_seed`.

    Returns:
        int64 (N,), 1..K.

    Raises:
        DataError: fewer groups than folds, or groups to be left out that nobody named.
    """
    usable = table[table["status"] == "ok"]
    units = sorted(set(usable["unit"]))
    if data.folds == LEAVE_ONE_GROUP_OUT:
        if table["group"].isna().all():
            raise DataError(
                "no groups are known, so none can be left out; name them in a list (column group) or by "
                "data.group_pattern, or choose a number of folds"
            )
        count = len(units)
        place = {unit: number for number, unit in enumerate(units, 1)}
    else:
        count = int(data.folds)
        if len(units) < count:
            raise DataError(f"{len(units)} groups cannot make {count} folds; lower data.folds, or add clips of others")
        place = _stratified(usable, count, data.split_seed)
    if count < 2:
        raise DataError("all clips belong to one group: there is nothing to learn from when it is tested")
    sizes = np.bincount(usable["unit"].map(place), minlength=count + 1)[1:]
    for unit, clips in sorted(table["unit"].value_counts().items()):
        if unit not in place:
            place[str(unit)] = int(np.argmin(sizes)) + 1
            sizes[place[str(unit)] - 1] += clips
    return table["unit"].map(place).to_numpy(dtype=np.int64)


def _stratified(table: pd.DataFrame, count: int, seed: int) -> dict[str, int]:
    """{unit: fold}."""
    from sklearn.model_selection import StratifiedGroupKFold

    names, units = strata(table), table["unit"].to_numpy(dtype=str)
    if np.unique(names, return_counts=True)[1].max() < count:  # no class has a clip for each fold
        names = np.full(len(table), "")
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    place: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer clips than folds: what follows from it is said below
        for number, (_, tested) in enumerate(splitter.split(units, names, units), 1):
            place |= dict.fromkeys(units[tested].tolist(), number)
    return place


def fold_notes(table: pd.DataFrame, folds: np.ndarray, data: DataConfig) -> list[str]:
    """What the user should know of these folds: sentences.

    Args:
        table: as of `fold_of`.
        folds: what that returned.
        data: of the configuration.
    """
    groups = table["unit"].nunique()
    notes = [f"{folds.max()} folds of {groups} groups; each clip is tested once, data.test is not used"]
    if table["split"].notna().any():
        notes.append("nor are the splits that the data comes with")
    if table["group"].isna().all():
        notes.append(
            "no groups are known: only clips of the same content, or that look alike, are kept together; clips of one "
            "person or place make the score too good (column group, or data.group_pattern)"
        )
    readable = (table["status"] == "ok").to_numpy()
    classes = class_names(table)
    for number in range(1, int(folds.max()) + 1):
        counts = class_counts(table[readable & (folds != number)], classes)
        if missing := [name for name in classes if not counts[name]]:
            notes.append(f"fold {number} has no training clip for: {', '.join(missing)}; its model cannot name them")
    return notes
