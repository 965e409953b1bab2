"""Evaluate: honest numbers on clips that were used for no choice, and what they do not say by themselves."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pipeline.config import DataConfig
from pipeline.data.catalog import Policy
from pipeline.errors import ConfigError, DataError
from pipeline.model import checkpoint
from pipeline.report.write import write_report
from pipeline.stages.distributed import alone, is_first
from pipeline.stages.examine import PRECISION, examine
from pipeline.stages.ingest import ingest
from pipeline.stages.mistakes import film_strips
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import say
from pipeline.stages.readings import note_reading, reading_of
from pipeline.stages.robustness import robustness
from pipeline.stages.scoring import Scored, compare, identities, learned, pool, readable_files, score
from pipeline.stages.time_use import time_use
from pipeline.stages.views import check_views, predict_views
from pipeline.tracking.evaluations import FinishedRun

__all__ = ["Scored", "Which", "evaluate", "identities", "pool", "score", "select"]

Which = Literal["test", "val", "train", "all"]


@dataclass(frozen=True)
class Wanted:
    """What an evaluation looks for beside the score.

    Attributes:
        precision: share of right answers that is wished for among those that are given; a threshold is sought for it.
        views: how often each clip is looked at, at other moments; the mean of the answers is its one answer.
        mirror: look at each view's mirror image too.
        time: is time used? The same clips shuffled, reversed, frozen, cut and thinned, beside pooling.
        robustness: the same clips re-encoded, smaller, with lost frames, brighter, darker and noisy.
    """

    precision: float = PRECISION
    views: int = 1
    mirror: bool = False
    time: bool = False
    robustness: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.precision <= 1:
            raise ConfigError(f"precision is {self.precision:g}; it is a share of right answers, above 0 and at most 1")
        if self.views < 1:
            raise ConfigError(f"views is {self.views}; a clip is looked at once or more")

    @property
    def more_views(self) -> bool:
        """There is more than the plain view."""
        return self.views > 1 or self.mirror


@dataclass(frozen=True)
class Chosen:
    """The clips of an evaluation.

    Attributes:
        table: their rows of the catalog.
        root: where they lie.
        home: this is the data the model was trained on.
        seen: how many were kept out because the model learned from them.
        vanished: identities of clips that should be scored and are not there any more.
    """

    table: pd.DataFrame
    root: str
    home: bool
    seen: int
    vanished: list[str]


def evaluate(
    predictor: Predictor,
    data: str | Path | DataConfig | None,
    split: Which = "test",
    out: str | Path | None = None,
    workers: int = -1,
    shuffle: bool = False,
    wanted: Wanted | None = None,
    run: FinishedRun | None = None,
    command: str = "evaluate",
) -> dict[str, Any]:
    """Score a checkpoint on a data set.

    Clips are recognised by their content, wherever they lie now: the checkpoint knows which it was trained on. In the
    data it was trained on, its own test split is scored; in any other, all clips that it did not learn from. Each look
    at clips of its test split is noted beside the checkpoint.

    Args:
        predictor: the model.
        data: folder or list, or a whole description of where the clips are; None: the data it was trained on.
        split: which clips of the checkpoint's own split; `all` includes those it learned from, and says so.
        out: folder for the page, metrics.json, tables and pictures.
        workers: decoding processes.
        shuffle: let the model see each clip's moments in random order. What it loses is what it had from their order;
            an order that is drawn from the clip's content, so that every model sees the same.
        wanted: what else to look for.
        run: the model's MLflow run, which gets the reading of the test split.
        command: what is noted as having read the test split.

    Returns:
        The metrics, with `split`, `data`, `model`, `shuffled` and `seen`: how many clips were kept out because the
        model learned from them; `views` and `mirrored`; what `examine` found; `time` and `robustness` where they were
        wanted; `readings` of the test split, this one included.

    Raises:
        DataError: nothing to score.
        ConfigError: views of a task with an answer for each moment, or mirror images that the model never saw.
    """
    wanted = wanted or Wanted()
    _check_wanted(predictor, wanted, shuffle)
    chosen = choose(predictor, data, split)
    scored = _scored(predictor, chosen, workers, shuffle, wanted)
    metrics = scored.metrics | {"split": split, "data": chosen.root, "model": predictor.digest}
    metrics |= {"shuffled": shuffle, "seen": chosen.seen, "views": wanted.views, "mirrored": wanted.mirror}
    metrics["command"] = command
    if tested := int(identities(scored.rows).isin(set(predictor.card.split.get("test", []))).sum()):
        metrics["readings"] = _noted(predictor, metrics, tested, run)
    metrics |= examine(predictor, scored, wanted.precision, not wanted.more_views)
    if wanted.time:
        metrics["time"] = time_use(predictor, scored, workers)
    if wanted.robustness:
        metrics["robustness"] = robustness(predictor, scored, workers)
    if out is not None and is_first():
        strips = film_strips(scored, metrics.get("mistakes", []), workers)
        write_report(metrics, scored.tracks, Path(out), strips, predictor.card.config["name"])
    return metrics


def _check_wanted(predictor: Predictor, wanted: Wanted, shuffle: bool) -> None:
    """What cannot be had, before the clips are decoded."""
    if wanted.more_views:
        check_views(predictor, wanted.mirror)
        if shuffle or wanted.time or wanted.robustness:
            raise ConfigError(
                "--shuffle, --time and --robustness show one view of each clip; leave out --views, --mirror"
            )
    if shuffle and (wanted.time or wanted.robustness):
        raise ConfigError("--time shuffles the clips itself, --robustness copies them as they are; leave out --shuffle")
    for name in ("views and mirror", "time", "robustness"):
        if getattr(wanted, "more_views" if name == "views and mirror" else name):
            alone(f"evaluate with {name}")


def _scored(predictor: Predictor, chosen: Chosen, workers: int, shuffle: bool, wanted: Wanted) -> Scored:
    if not wanted.more_views:
        return score(predictor, chosen.table, workers, chosen.vanished, shuffle)
    files = readable_files(predictor, chosen.table)
    predictions = predict_views(predictor, files, workers, wanted.views, wanted.mirror)
    return compare(predictor, chosen.table, files, predictions, chosen.vanished)


def _noted(predictor: Predictor, metrics: dict[str, Any], tested: int, run: FinishedRun | None) -> list[dict[str, Any]]:
    """All readings of the test split, with this one; of several processes the first one notes it."""
    reading = reading_of(predictor.card, metrics, metrics["command"], tested, predictor.digest)
    if not is_first():
        return [asdict(reading)]
    return [asdict(one) for one in note_reading(reading, predictor.folder, run)]


def choose(predictor: Predictor, data: str | Path | DataConfig | None, split: Which) -> Chosen:
    """Find the clips of an evaluation, see `evaluate`.

    Raises:
        DataError: there is none.
    """
    whole = checkpoint.config_of(predictor.card)
    config, policy = whole.data, Policy(whole.limits, whole.video.partial)
    given = data if isinstance(data, DataConfig) or data is None else DataConfig(root=str(data))
    home = given is None or os.path.realpath(given.root or "") == os.path.realpath(config.root or "")
    if given is not None and not home:  # other data has its own layout and names
        config = replace(given, background=given.background or config.background)
    table = ingest(config, split=False, policy=policy, task=whole.task).table
    own = predictor.card.split
    chosen, seen = select(table, own, split, home)
    if seen:
        say(f"{seen} clips are not scored: the model learned from them (--split all scores them too)")
    if split == "test" and home and (more := _strangers(table, own)):
        say(f"{more} clips came after the training and are in no split; they are not scored (--split all)")
    if chosen.empty:
        raise DataError(f"{config.root}: no clip of the {split} split is there")
    vanished = sorted(set(own.get(split, []) if home else []) - set(identities(table)))
    return Chosen(chosen, str(config.root), home, seen, vanished)


def select(table: pd.DataFrame, own: dict[str, Any], split: Which, home: bool) -> tuple[pd.DataFrame, int]:
    """The rows to score, and how many were kept out because the model has seen them.

    Args:
        table: a catalog.
        own: the checkpoint's split: content identities of its train, val and test clips.
        split: see `evaluate`.
        home: this is the data the model was trained on, so its own split says all.
    """
    if split == "all":
        return table, 0
    identity = identities(table)
    if home or split != "test":
        return table[identity.isin(set(own.get(split, [])))], 0
    known = identity.isin(learned(own))
    return table[~known], int(known.sum())


def _strangers(table: pd.DataFrame, own: dict[str, Any]) -> int:
    """How many clips are in none of the model's splits."""
    known = {name for split in ("train", "val", "test") for name in own.get(split, [])}
    return int((~identities(table).isin(known)).sum())
