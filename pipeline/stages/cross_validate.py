"""Cross-validate: a model per fold, every clip tested once by the one that never saw its group, one pooled result."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import yaml

from pipeline.config import Config, flatten, to_dict
from pipeline.data.catalog import Policy
from pipeline.data.folds import fold_notes, fold_of
from pipeline.errors import CheckpointError, ConfigError, DataError, UserError
from pipeline.model import checkpoint
from pipeline.report.folds import fold_rows, spread, write_folds
from pipeline.report.tables import TASK_COLUMNS, write_json, write_results
from pipeline.report.tasks import JUDGED, TITLES, headline
from pipeline.report.text import score_text
from pipeline.report.write import write_report
from pipeline.stages.checks import check_encoder, check_task
from pipeline.stages.devices import choose_device
from pipeline.stages.distributed import alone
from pipeline.stages.evaluate import Scored, identities, pool, score
from pipeline.stages.ingest import Ingested, clip_names, ingest
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import say
from pipeline.stages.resume import NAME as RESUME
from pipeline.stages.rows import result_row
from pipeline.stages.run_folder import FOLDS, RESULT, differences, locked, make_folder, recorded, rooted
from pipeline.stages.train import Trained, train
from pipeline.tracking.environment import record_environment
from pipeline.tracking.runs import Run, end_early, start

TRUE = {"label": "true_label", "regression": "true_value"}
"""Column of the table of predictions that says what was right, where that is one thing per clip."""


@dataclass(frozen=True)
class CrossValidated:
    """What a cross-validation came to.

    Attributes:
        folds: the training of each fold, with its test.
        pooled: metrics over all clips.
        run_id: MLflow run that the folds' runs are nested under; None when tracking is off.
        folder: the folds' folders, and `report/`.
    """

    folds: list[Trained]
    pooled: dict[str, Any]
    run_id: str | None
    folder: str


def cross_validate(
    config: Config, out: str | Path | None = None, fresh: bool = False, resume: bool = False
) -> CrossValidated:
    """Train a model per fold and pool their tests.

    Interrupted, the same call goes on where it was, in the same MLflow runs: finished folds are not trained again. Nor
    are folds that were trained one by one (`data.fold`) in the folders fold-1, fold-2, ... below `out`.

    Args:
        config: everything; `data.folds` says how many folds, or leave-one-group-out.
        out: the folder; None: runs/NAME, or the next free runs/NAME-2, -3, ...
        fresh: start over, replacing what is in the folder.
        resume: insist on continuing.

    Raises:
        UserError: whatever the user can mend: no folds, too few groups, another training in the way, several
            processes that train together.
    """
    if not config.data.folds or config.data.fold:
        raise ConfigError("a cross-validation needs data.folds, and no data.fold")
    alone("a cross-validation (but not each --data.fold of one)")
    choose_device(config.training.device)
    check_encoder(config)
    check_task(config)
    config = rooted(config)
    folder = make_folder(config, None if out is None else Path(out), fresh)
    with locked(folder):
        state = None if fresh else _unfinished(folder, config, resume)
        policy = Policy(config.limits, config.video.partial)
        data = ingest(config.data, split=False, policy=policy, task=config.task)
        folds = fold_of(data.table, config.data)
        for note in fold_notes(data.table, folds, config.data):
            say(note)
        configs = [_of_fold(config, number) for number in range(1, int(folds.max()) + 1)]
        known = identities(data.table)
        finished = [
            None if fresh else _finished(folder / f"fold-{number}", fold, known[folds == number])
            for number, fold in enumerate(configs, 1)
        ]
        state = state or {"config": flatten(recorded(config)), "run_id": None, "key": uuid4().hex}
        if not fresh:
            write_json(state, folder / FOLDS)  # by its key, a run is found whose identifier a kill kept from here
        run = start(config.tracking, config.name, state["run_id"], key=state["key"], folder=folder)
        if fresh:  # not before everything that can be wrong has been found right
            _clear(folder)
        write_json(state | {"run_id": run.run_id}, folder / FOLDS)
        try:
            result = _run(config, configs, folder, data, folds, finished, run)
        except BaseException as error:
            end_early(run, error)
            raise
        run.finish("FINISHED")
    return result


def _unfinished(folder: Path, config: Config, resume: bool) -> dict[str, Any] | None:
    """The cross-validation to go on with: its configuration, MLflow run and key."""
    if (folder / RESULT).exists():
        raise UserError(f"{folder} holds a finished training; choose another --out, or replace it with --fresh")
    if (folder / RESUME).exists():
        raise UserError(f"{folder} holds an unfinished training without folds; choose another --out")
    if not (folder / FOLDS).exists():
        if resume:
            raise CheckpointError(f"{folder} holds no unfinished cross-validation to resume")
        return None
    before: dict[str, Any] = json.loads((folder / FOLDS).read_text())
    if changed := differences(before["config"], flatten(recorded(config))):
        raise UserError(
            f"{folder} holds an unfinished cross-validation with another {', '.join(changed[:3])}; continue it with "
            "its own options, start over with --fresh, or choose another --out"
        )
    say(f"continuing the cross-validation in {folder}")
    return before


def _clear(folder: Path) -> None:
    """Remove what a cross-validation writes, and nothing else that may lie in the folder."""
    for path in [*folder.glob("fold-*"), folder / "report"]:
        shutil.rmtree(path, ignore_errors=True)
    for name in (RESULT, FOLDS):
        (folder / name).unlink(missing_ok=True)


def _of_fold(config: Config, number: int) -> Config:
    return replace(config, name=f"{config.name}-fold-{number}", data=replace(config.data, fold=number))


def _finished(folder: Path, config: Config, tested: pd.Series[str]) -> Trained | None:
    """The training in a fold's folder, if it is finished; of these options, and with these clips as its test."""
    if not (folder / RESULT).exists():
        return None
    result = json.loads((folder / RESULT).read_text())
    _, card = checkpoint.load(folder / "best")
    if changed := differences(flatten(card.config), flatten(recorded(config))):
        raise UserError(f"{folder} holds a training with another {', '.join(changed[:3])}; start over with --fresh")
    if set(card.split["test"]) != set(tested):
        raise DataError(f"{folder}: the data changed since this fold was trained; start over with --fresh")
    return Trained(str(folder / "best"), result["run_id"], result["test"], str(folder))


def _run(
    config: Config,
    configs: list[Config],
    folder: Path,
    data: Ingested,
    folds: np.ndarray,
    finished: list[Trained | None],
    run: Run,
) -> CrossValidated:
    _describe(run, config, data)
    trained = []
    for number, (fold, before) in enumerate(zip(configs, finished, strict=True), 1):
        tested = int((folds == number).sum())
        say(f"fold {number} of {len(configs)}, {tested} clips are tested" + (": trained before" if before else ""))
        one = before or train(fold, folder / f"fold-{number}", parent=run.run_id)
        scores = {f"fold/{key}": one.test[key] for key in JUDGED[config.task].scores if one.test[key] is not None}
        run.metrics(scores, step=number)
        trained.append(one)
    say("pooling: every clip, by the model that never saw its group")
    pooled = _pool(config, trained, folder / "report", data, folds)
    _publish(run, folder / "report", [one.test for one in trained], pooled)
    result = CrossValidated(trained, pooled, run.run_id, str(folder))
    write_json(as_json(result), folder / RESULT)
    first = JUDGED[config.task].scores[0]
    say(f"pooled {TITLES[first]} {score_text(pooled, first)}")
    return result


def as_json(result: CrossValidated) -> dict[str, Any]:
    """What `train --json` prints."""
    folds = [{"checkpoint": one.checkpoint, "run_id": one.run_id, "test": one.test} for one in result.folds]
    return {"folds": folds, "pooled": result.pooled, "run_id": result.run_id, "folder": result.folder}


def _describe(run: Run, config: Config, data: Ingested) -> None:
    run.params(flatten(to_dict(config)))
    record_environment(run, "cross_validate")
    run.tags(
        {"dataset.digest": data.digest, **{f"dataset.{key}": data.summary[key] for key in ("files", "ok", "failed")}}
    )
    run.text(yaml.safe_dump(recorded(config), sort_keys=False), "config.yaml")


def _pool(config: Config, trained: list[Trained], report: Path, data: Ingested, folds: np.ndarray) -> dict[str, Any]:
    """Let each fold's model answer to its clips; the report over all of them."""
    parts: list[Scored] = []
    rows: dict[int, dict[str, Any]] = {}
    device = choose_device(config.training.device)
    for number, one in enumerate(trained, 1):
        model, card = checkpoint.load(Path(one.checkpoint))
        predictor = Predictor(model, card, device, checkpoint.digest(Path(one.checkpoint)))
        tested = data.table[folds == number]
        scored = score(predictor, tested, config.training.workers)
        parts.append(scored)
        rows |= _predictions(predictor, tested, scored, number)
    pooled = pool(parts, data.classes)
    write_report(pooled.metrics, pooled.tracks, report)
    write_folds(fold_rows([one.test for one in trained], pooled.metrics), report / "folds.csv")
    known = [TRUE[config.task]] if config.task in TRUE else []
    path, *others = TASK_COLUMNS[config.task]
    for suffix in ("csv", "parquet"):
        columns = (path, "fold", "group", *known, *others)
        write_results([rows[index] for index in sorted(rows)], report / f"predictions.{suffix}", columns)
    return pooled.metrics


def _predictions(predictor: Predictor, table: pd.DataFrame, scored: Scored, fold: int) -> dict[int, dict[str, Any]]:
    """Per position in the catalog the row of a clip that this fold tested."""
    answers, tracks = iter(scored.predictions), iter(scored.tracks)
    rows = {}
    columns = (table[name].tolist() for name in ("unit", "label", "status", "detail"))
    named = zip(table.index, clip_names(table), *columns, strict=True)
    for index, name, unit, label, status, detail in named:
        row = {"status": status, "note": detail, "model": predictor.digest}
        if status == "ok" and (answer := next(answers)):
            row = result_row(answer, predictor)
            track = next(tracks) if answer.error is None else None
            if predictor.task == "regression" and track is not None:
                row["true_value"] = float(track.true[0])
        if predictor.task == "label":
            row["true_label"] = label
        rows[int(index)] = row | {"path": name, "fold": fold, "group": unit}
    return rows


def _publish(run: Run, report: Path, folds: list[dict[str, Any]], pooled: dict[str, Any]) -> None:
    """The pooled scores under the names that a single training's have, the spread of the folds, and the report."""
    numbers = {f"test/{key}": float(x) for key, x in headline(pooled).items() if isinstance(x, int | float)}
    for key, (mean, deviation) in spread(folds).items():
        numbers |= {f"folds/{key}_mean": mean}
        numbers |= {} if deviation is None else {f"folds/{key}_deviation": deviation}
    run.metrics(numbers, step=0)
    run.artifact(report, "report")
