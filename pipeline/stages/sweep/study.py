"""Optuna: asked which values to try next, told what came of them. No other file knows it.

Every sampler but Sobol's is made anew for each trial, seeded by (seed, number), and all that it knows is in the
storage: a sweep that was killed asks for the same values as one that was not.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.config import flatten
from pipeline.config.sweep import SweepConfig
from pipeline.errors import ConfigError, UserError
from pipeline.stages.sweep.space import Dimension, Value
from pipeline.tracking.store import hide_password

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}
STARTUP_TRIALS = 5
"""Trials before the median pruner ends any."""
FEWEST_FOR_IMPORTANCE = 4
"""Finished trials below which an importance would be an accident."""
SETTINGS = "settings"


@dataclass(frozen=True)
class Trial:
    """One trial as it stands.

    Attributes:
        number: from 0.
        state: finished, pruned, failed or running.
        values: of the options that are varied.
        value: the metric of its checkpoint; of a pruned one its last; None if there is none.
        epochs: finished ones.
        seconds: it took, from the last time it was begun.
        reason: why it failed.
        run_id: its MLflow run, if it finished and there is one.
    """

    number: int
    state: str
    values: dict[str, Value]
    value: float | None
    epochs: int
    seconds: float | None
    reason: str
    run_id: str | None


class Study:
    """The trials of one sweep, in a database; one process at a time uses it.

    Args:
        url: of the database, made if it is an SQLite file that is not there.
        config: of the sweep.
        dimensions: what is varied.
        minimise: smaller values of the metric are better.
        settings: everything that decides what comes out; must be what the study was begun with.
        fresh: forget the study that may be there.

    Raises:
        ConfigError: the database cannot be used.
        UserError: it holds a sweep of this name with other settings.
    """

    def __init__(
        self,
        url: str,
        config: SweepConfig,
        dimensions: list[Dimension],
        minimise: bool,
        settings: Mapping[str, Any],
        fresh: bool,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        self.config, self.dimensions, self.minimise = config, dimensions, minimise
        self.grid = _shuffled_grid(dimensions, config.seed) if config.sampler == "grid" else []
        self._live: dict[int, optuna.Trial] = {}
        try:
            storage = optuna.storages.RDBStorage(url)
            if fresh and config.name in optuna.get_all_study_names(storage):
                optuna.delete_study(study_name=config.name, storage=storage)
            self._study = optuna.create_study(
                study_name=config.name,
                storage=storage,
                pruner=_pruner(config),
                direction="minimize" if minimise else "maximize",
                load_if_exists=True,
            )
        except (SQLAlchemyError, OptunaError, ImportError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ConfigError(f"storage {hide_password(url)} cannot be used: {hide_password(first)}") from None
        self._same(settings)

    def _same(self, settings: Mapping[str, Any]) -> None:
        before = self._study.user_attrs.get(SETTINGS)
        if before is None:
            self._study.set_user_attr(SETTINGS, json.loads(json.dumps(settings)))
            return
        old, new = flatten(before), flatten(json.loads(json.dumps(settings)))
        changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        if changed:
            raise UserError(
                f"there is a sweep '{self.config.name}' already, with another {', '.join(changed[:3])}; go on with its "
                "own options, start over with --fresh, or give this one another --name"
            )

    @property
    def run_id(self) -> str | None:
        """MLflow run of the sweep, remembered for when it goes on."""
        found: str | None = self._study.user_attrs.get("run_id")
        return found

    @run_id.setter
    def run_id(self, value: str | None) -> None:
        self._study.set_user_attr("run_id", value)

    def ask(self) -> Trial:
        """The next trial, with values of the sampler's choice."""
        number = len(self._study.get_trials(deepcopy=False))
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if waiting:  # killed between the next two calls
            number = waiting[0].number
        elif self.grid:
            self._study.enqueue_trial(self.grid[number])
        self._study.sampler = _sampler(self.config, number)
        return self._suggested(self._study.ask())

    def unfinished(self) -> list[Trial]:
        """Trials that were running when the sweep ended, to be gone on with."""
        found = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        unfinished = []
        for frozen in found:
            self._study.sampler = _sampler(self.config, frozen.number)
            unfinished.append(self._suggested(optuna.Trial(self._study, frozen._trial_id)))
        return unfinished

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note the metric after an epoch; whether the trial should end there."""
        trial = self._live[number]
        if epoch not in self._frozen(number).intermediate_values:  # a resumed trial goes through some epochs again
            trial.report(value, epoch)
        return bool(trial.should_prune())

    def tell(
        self, number: int, state: str, value: float | None = None, reason: str = "", **facts: float | str | None
    ) -> Trial:
        """A trial is over: finished with a value, pruned, or failed for a reason."""
        trial = self._live.pop(number)
        for key, fact in {**facts, "reason": reason}.items():
            trial.set_user_attr(key, fact)
        into = next(optuna_state for optuna_state, name in STATES.items() if name == state)
        self._study.tell(trial, value, state=into)
        return _described(self._frozen(number))

    def trials(self) -> list[Trial]:
        """All of them, in their order."""
        return [_described(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def best(self) -> Trial | None:
        """The finished trial with the best value, the first of equals; None if none finished."""
        sign = 1 if self.minimise else -1
        finished = [trial for trial in self.trials() if trial.state == "finished"]
        return min(finished, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def importance(self) -> dict[str, float]:
        """Share of each option in the variance of the metric over the finished trials, the largest first (fANOVA:
        Hutter, Hoos and Leyton-Brown 2014); empty where they are too few or all alike.
        """
        values = [trial.value for trial in self.trials() if trial.state == "finished"]
        if len(values) < FEWEST_FOR_IMPORTANCE or len(set(values)) == 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.config.seed)
        shares = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {name: float(share) for name, share in sorted(shares.items(), key=lambda item: -item[1])}

    def _suggested(self, trial: optuna.Trial) -> Trial:
        """With a value for each option: those it has, where it was asked before."""
        for dimension in self.dimensions:
            if dimension.values:
                trial.suggest_categorical(dimension.name, dimension.values)
            elif dimension.whole:
                low, high = int(dimension.low), int(dimension.high)
                trial.suggest_int(dimension.name, low, high, step=int(dimension.step or 1), log=dimension.log)
            else:
                trial.suggest_float(
                    dimension.name, dimension.low, dimension.high, step=dimension.step, log=dimension.log
                )
        self._live[trial.number] = trial
        return _described(self._frozen(trial.number))

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def _described(frozen: optuna.trial.FrozenTrial) -> Trial:
    state, facts = STATES[frozen.state], frozen.user_attrs
    value = frozen.value
    if state == "pruned" and frozen.last_step is not None:
        value = frozen.intermediate_values[frozen.last_step]
    return Trial(
        frozen.number,
        state,
        dict(frozen.params),
        value,
        frozen.last_step or 0,
        facts.get("seconds"),
        facts.get("reason", ""),
        facts.get("run_id"),
    )


def _number_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _sampler(config: SweepConfig, number: int) -> optuna.samplers.BaseSampler:
    seed = _number_seed(config.seed, number)
    alone = optuna.samplers.RandomSampler(seed=seed)
    if config.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=config.parallel > 1)
    if config.sampler == "qmc":
        return optuna.samplers.QMCSampler(
            scramble=True, seed=config.seed, independent_sampler=alone, warn_independent_sampling=False
        )
    return alone  # a grid's values are enqueued


def _pruner(config: SweepConfig) -> optuna.pruners.BasePruner:
    epochs = _most_epochs(config)
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=max(2, math.ceil(epochs / 4)))
    if config.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()


def _most_epochs(config: SweepConfig) -> int:
    varied = config.space.get("training.epochs", {})
    return int(max([config.base.training.epochs, *varied.get("values", [varied.get("high", 0)])]))


def _shuffled_grid(dimensions: list[Dimension], seed: int) -> list[dict[str, Value]]:
    names = [dimension.name for dimension in dimensions]
    combinations = list(itertools.product(*(dimension.points() for dimension in dimensions)))
    order = np.random.default_rng(seed).permutation(len(combinations))
    return [dict(zip(names, combinations[i], strict=True)) for i in order]
