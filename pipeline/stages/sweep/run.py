"""Sweep: many trainings that differ in a few options, compared by their validation, the best one tested."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from pipeline.config import Config, to_dict
from pipeline.config.sweep import SweepConfig
from pipeline.errors import ConfigError, TrackingError, UserError
from pipeline.process import usable_cores
from pipeline.report.tasks import JUDGED
from pipeline.stages.distributed import alone
from pipeline.stages.progress import say
from pipeline.stages.run_folder import RESUMABLE, locked, recorded, rooted
from pipeline.stages.sweep.process import TrialProcess
from pipeline.stages.sweep.results import Swept, clear, conclude, values_text
from pipeline.stages.sweep.space import Dimension, applied, check_fit, check_grid, read_space
from pipeline.stages.sweep.study import Study, Trial
from pipeline.tracking.environment import record_environment
from pipeline.tracking.runs import Run, end_early, start

RESTARTS = 2
"""Times a trial goes on in a new process when its own was killed."""
FIRST = 3
"""Trials after which a sweep ends if all of them failed."""


def sweep(
    config: SweepConfig,
    out: str | Path | None = None,
    fresh: bool = False,
    register_as: str | None = None,
    alias: str | None = None,
) -> Swept:
    """Try trainings, and test the best one.

    A sweep that was ended in any way goes on with the same call: what was running is resumed where it was, what is
    over stays, and a finished one runs no more trials than it lacks.

    Args:
        config: everything.
        out: the sweep's folder; None: runs/NAME.
        fresh: start over, removing all that is there.
        register_as: name under which the best checkpoint becomes a version in MLflow's registry.
        alias: that points to this version.

    Raises:
        UserError: whatever the user can mend, most of it before the first trial; the first trials all failed.
    """
    alone("a sweep")
    config = replace(config, base=rooted(config.base))
    dimensions = read_space(config.space)
    if config.sampler == "grid":
        config = replace(config, trials=min(config.trials, check_grid(dimensions)))
    check_fit(config.base, dimensions)
    if config.base.data.folds and not config.base.data.fold:
        raise ConfigError("a sweep compares trials on one split; choose one fold by base.data.fold, or set folds to 0")
    metric, minimise = objective(config)
    if register_as and not config.base.tracking.enabled:
        raise ConfigError("--register needs an MLflow store; set --base.tracking.enabled true")
    if register_as and config.base.tracking.offline:
        raise ConfigError("--register needs an MLflow store that answers; set --base.tracking.offline false")
    if alias and not register_as:
        raise ConfigError("--alias names a version in the registry; give --register NAME too")
    folder = Path(out or Path("runs") / config.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); choose another --out") from None
    with locked(folder):
        running = _Sweep(config, dimensions, metric, minimise, folder)
        return running.run(fresh, register_as, alias)


def objective(config: SweepConfig) -> tuple[str, bool]:
    """The metric's key in a training's history, and whether less is better.

    Raises:
        ConfigError: no such metric, or a test score.
    """
    judged = JUDGED[config.base.task]
    metric = judged.validation if config.metric == "auto" else config.metric.replace("/", "_")
    if metric.startswith("test"):
        raise ConfigError(
            f"metric is {config.metric}: the best of many test scores is no test any more; "
            f"choose trials by {judged.validation} or val_loss, and the best one is tested at the end"
        )
    if metric not in ("val_loss", judged.validation):
        raise ConfigError(f"metric is '{config.metric}'; choose auto, val_loss or {judged.validation}")
    return metric, metric == "val_loss" or not judged.share


@dataclass
class _Sweep:
    """One call of `sweep`, once its options are known to be right."""

    config: SweepConfig
    dimensions: list[Dimension]
    metric: str
    minimise: bool
    folder: Path
    study: Study = field(init=False)
    tracked: Run = field(init=False)
    started: float = field(default_factory=time.monotonic)
    queue: deque[Trial] = field(default_factory=deque)
    idle: list[int] = field(default_factory=list)
    processes: dict[int, TrialProcess] = field(default_factory=dict)
    at: dict[int, Trial] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    restarts: Counter[int] = field(default_factory=Counter)
    an_epoch_is_over: bool = False

    def run(self, fresh: bool, name: str | None, alias: str | None) -> Swept:
        """From the check of the data to the test of the best trial."""
        self.idle = list(reversed(range(self.config.parallel)))
        try:
            self._ask(0, {"do": "check", **self._task(self.config.base, self.folder, 0)})
            self._open(fresh)
            try:
                self._trials()
                swept = self._conclude(name, alias)
            except BaseException as error:
                end_early(self.tracked, error)
                raise
        finally:
            for process in self.processes.values():
                process.leave()  # all at once, so that they save their models at the same time
            for process in self.processes.values():
                process.end()
        with suppress(TrackingError):
            self.tracked.finish("FINISHED")
        return swept

    def _open(self, fresh: bool) -> None:
        """The study and the MLflow run, once nothing else can be wrong any more."""
        settings = _settings(self.config, self.metric)
        url = self.config.storage or f"sqlite:///{(self.folder / 'study.db').absolute()}"
        self.study = Study(url, self.config, self.dimensions, self.minimise, settings, fresh)
        if fresh:
            clear(self.folder)
        over = sum(trial.state != "running" for trial in self.study.trials())
        self._check_folder()
        self.queue.extend(self.study.unfinished())
        if over or self.queue:
            say(f"going on with the sweep in {self.folder} after {over} trials")
        self.tracked = start(self.config.base.tracking, self.config.name, self.study.run_id, folder=self.folder)
        self.study.run_id = self.tracked.run_id
        varied = {f"space.{name}": given for name, given in self.config.space.items()}
        named = ("trials", "sampler", "pruner", "seed")
        self.tracked.params(varied | {"metric": self.metric} | {name: getattr(self.config, name) for name in named})
        self.tracked.tags({"sweep": self.config.name})
        record_environment(self.tracked, "sweep")

    def _check_folder(self) -> None:
        """Trials are kept in two places, which must be of one sweep. One that failed may never have had a folder."""
        there = any((self.folder / "trials").glob("*/*"))
        if there and not self.study.trials():
            raise UserError(f"{self.folder} holds trials of another sweep; choose another --out, or --fresh")
        if any(trial.state in ("finished", "pruned") for trial in self.study.trials()) and not there:
            raise UserError(
                f"the storage holds trials of a sweep '{self.config.name}' that are not in {self.folder}; give its "
                "folder as --out, or another --name"
            )

    def _trials(self) -> None:
        """Until there are enough, or the time is over."""
        while True:
            while self.idle and (trial := self._next()) is not None:
                self._begin(trial)
            if not self.at:
                return
            slots = {self.processes[slot].fileno(): slot for slot in self.at}
            for ready in wait(list(slots)):
                assert isinstance(ready, int)
                self._hear(slots[ready])

    def _next(self) -> Trial | None:
        """What to begin now. The first one is alone until it has finished an epoch: it fills the feature store that
        the others read.
        """
        if self.at and not self.an_epoch_is_over:
            return None
        if self.queue:
            return self.queue.popleft()
        late = self.config.timeout and time.monotonic() - self.started > self.config.timeout
        if late or len(self.study.trials()) >= self.config.trials:
            return None
        return self.study.ask()

    def _begin(self, trial: Trial) -> None:
        verb = "goes on" if trial.epochs or self.restarts[trial.number] else "begins"
        say(f"trial {trial.number:3d}  {verb:8}  {values_text(trial.values)}")
        try:
            config = applied(self.config.base, trial.values)
        except ConfigError as error:
            self._over(trial.number, "failed", reason=str(error))
            return
        slot = self.idle.pop()
        self.at[slot], self.begun[slot] = trial, time.monotonic()
        named = replace(config, name=f"{self.config.name}-{trial.number}")
        task = self._task(named, trial_folder(self.folder, trial.number), slot)
        self._process(slot).send({"do": "train", "metric": self.metric, "parent": self.tracked.run_id, **task})

    def _hear(self, slot: int) -> None:
        """What a trial says: an epoch is over, or the trial is."""
        trial, said = self.at[slot], self.processes[slot].receive()
        if said is not None and "epoch" in said:
            self.an_epoch_is_over = True
            prune = self.study.report(trial.number, said["epoch"], said["value"])
            self.processes[slot].send({"prune": prune})
            return
        del self.at[slot]
        self.idle.append(slot)
        seconds = time.monotonic() - self.begun[slot]
        if said is None:
            self._lost(slot, trial)
        elif "failed" in said:
            self._over(trial.number, "failed", reason=said["failed"], seconds=seconds)
        elif "pruned" in said:
            self._over(trial.number, "pruned", seconds=seconds)
        else:
            self._over(trial.number, "finished", said["finished"], seconds=seconds, run_id=said["run_id"])

    def _lost(self, slot: int, trial: Trial) -> None:
        """Its process was killed, or crashed: go on where it was, but not for ever."""
        how = self.processes.pop(slot).end()
        self.restarts[trial.number] += 1
        if self.restarts[trial.number] <= RESTARTS:
            say(f"trial {trial.number:3d}  its process {how}; it goes on in a new one")
            self.queue.appendleft(trial)
        else:
            self._over(trial.number, "failed", reason=f"its process {how}, {RESTARTS + 1} times")

    def _over(self, number: int, state: str, value: float | None = None, **facts: Any) -> None:
        trial, best = self.study.tell(number, state, value, **facts), self.study.best()
        shown = f"{self.metric} {trial.value:.4g}" if trial.value is not None else trial.reason
        leads = best is not None and best.number == number
        say(f"trial {number:3d}  {state:8}  {shown}{'  best' if leads else ''}")
        if leads and value is not None:
            with suppress(TrackingError):
                self.tracked.metrics({f"best/{self.metric}": value}, step=number)
        states = Counter(known.state for known in self.study.trials())
        hopeless = states["failed"] >= min(FIRST, self.config.trials)
        if state == "failed" and hopeless and not states["finished"] + states["pruned"]:
            raise UserError(
                f"the first {states['failed']} trials failed, the last one: {trial.reason}; see the log.txt in each of "
                f"{self.folder / 'trials'}"
            )

    def _conclude(self, name: str | None, alias: str | None) -> Swept:
        best = self.study.best()
        if best is None:
            raise UserError(
                f"no trial of {self.folder} finished; raise --trials or --timeout, and see each trial's log.txt"
            )
        config = applied(self.config.base, best.values)
        config = replace(config, name=f"{self.config.name}-{best.number}")
        task = self._task(config, trial_folder(self.folder, best.number), 0)
        test = self._ask(0, {"do": "test", **task})["test"]
        swept = conclude(self.study, self.metric, self.folder, Path(task["folder"]), self.tracked, test)
        if name is None or best.run_id is None:
            return swept
        tags = {"metric": self.metric, "value": best.value, "sweep.run_id": self.tracked.run_id}
        from pipeline.stages.register import register_model, registered_text  # with torch, which trials alone need

        tracking, device = self.config.base.tracking, self.config.base.training.device
        done = register_model(f"runs:/{best.run_id}", name, alias, None, False, tracking, device, tags=tags)
        say(registered_text(done))
        return replace(swept, registered=done["model"])

    def _task(self, config: Config, folder: Path, slot: int) -> dict[str, Any]:
        return {"config": to_dict(config), "folder": str(folder), "slot": slot, "parallel": self.config.parallel}

    def _ask(self, slot: int, task: dict[str, Any]) -> dict[str, Any]:
        """One answer to one task, outside the trials.

        Raises:
            UserError: the task failed by something the user can mend.
        """
        process = self._process(slot)
        process.send(task)
        said = process.receive()
        if said is None:
            raise UserError(f"the process of the sweep {self.processes.pop(slot).end()}; is there enough memory?")
        if "traceback" in said:
            raise RuntimeError(said["traceback"])
        if "failed" in said:
            raise UserError(said["failed"])
        return said

    def _process(self, slot: int) -> TrialProcess:
        if slot not in self.processes:
            parallel = self.config.parallel
            self.processes[slot] = TrialProcess(max(1, usable_cores() // parallel) if parallel > 1 else 0)
        return self.processes[slot]


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial of a sweep trains."""
    return folder / "trials" / f"{number:04d}"


def _settings(config: SweepConfig, metric: str) -> dict[str, Any]:
    """What decides which trials there are and what comes out of them."""
    base = {key: value for key, value in recorded(config.base).items() if key not in ("name", "tracking")}
    base["training"] = {k: v for k, v in base["training"].items() if not f"training.{k}".startswith(RESUMABLE)}
    named = {name: getattr(config, name) for name in ("sampler", "pruner", "seed")}
    return {"base": base, "space": config.space, "metric": metric, **named}
