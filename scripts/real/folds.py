"""Group folds: each clip is tested once, and the clips of one source are never on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.errors import DataError
from pipeline.stages.ingest import find_leaks


def join_alike(table: pd.DataFrame) -> pd.DataFrame:
    """The catalog with one unit for all that hold clips which look alike; training refuses such clips apart."""
    units = table["unit"]
    for pair in find_leaks(table.assign(split=units)):
        one, other = (units[table["path"] == path].iloc[0] for path in (pair.path, pair.other))
        units = units.replace(max(one, other), min(one, other))
    return table.assign(unit=units)


def make_folds(table: pd.DataFrame, count: int, seed: int) -> list[pd.DataFrame]:
    """Lists that `video-lstm train` reads, one per fold.

    Groups come in random order and go whole to the fold that keeps the classes most even (scikit-learn's
    `StratifiedGroupKFold`). The clips to be tested have the split `test`, the others `train`; training takes its
    validation clips out of the latter, by group too (`data.val`).

    Args:
        table: a catalog with the columns path, label and unit; unit is what must stay together.
        count: folds, 2 or more.
        seed: decides the order of the groups.

    Returns:
        Per fold the columns path (absolute), label, group and split, in the rows' order.

    Raises:
        DataError: fewer groups than folds.
    """
    groups = table["unit"].nunique()
    if groups < count:
        raise DataError(f"{groups} groups cannot make {count} folds; lower --folds")
    columns = {"path": [str(Path(path).resolve()) for path in table["path"]]}
    columns |= {"label": table["label"].tolist(), "group": table["unit"].tolist()}
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    folds = []
    for _, tested in splitter.split(columns["path"], columns["label"], columns["group"]):
        split = np.full(len(table), "train", dtype=object)
        split[tested] = "test"
        folds.append(pd.DataFrame({**columns, "split": split}))
    return folds


def write_folds(table: pd.DataFrame, count: int, seed: int, folder: Path) -> list[Path]:
    """The lists of `make_folds` as CSV files in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, fold in enumerate(make_folds(table, count, seed)):
        path = folder / f"{count}folds_seed{seed}_{number}.csv"
        fold.to_csv(path, index=False)
        paths.append(path)
    return paths
