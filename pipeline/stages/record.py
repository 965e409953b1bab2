"""What a training tells its MLflow run. Names and meanings are those of docs/tracking.md."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from pipeline.config import Config, flatten, to_dict
from pipeline.data import catalog, splits
from pipeline.report.tables import csv_table
from pipeline.report.tasks import JUDGED
from pipeline.stages import inside
from pipeline.stages.ingest import Ingested
from pipeline.stages.inside import Reading
from pipeline.stages.run_folder import recorded
from pipeline.stages.serve.folder import log_model
from pipeline.tracking.datasets import DataInput, record_inputs
from pipeline.tracking.run import Run

BUDGET = 3.0
"""Most that a run's artifacts may take, in sizes of its checkpoint; what is asked for comes on top."""
LAST_FOLDER = "checkpoint_last"
ROW_NAMES = {
    "train_loss": "train/loss",
    "val_loss": "val/loss",
    **{judged.validation: judged.validation.replace("val_", "val/") for judged in JUDGED.values()},
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "seconds": "time/epoch",
}
STEP_NAMES = ("step/loss", "step/gradient_norm", "step/learning_rate")
MEASURED = ("time", "steps")
"""Keys of a reading that are no look into the model."""
PARTS = ("decode", "encoder", "head", "update", "validation")
SHARES = ("decode", "encoder", "head")


class Stages:
    """Seconds that the stages of a training take, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done in the context; also where it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def metrics(self) -> dict[str, float]:
        """By their names in the run."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}


def describe(run: Run, config: Config, data: Ingested) -> None:
    """Everything about a training that is known before its first epoch."""
    run.params(flatten(to_dict(config)))
    report = splits.report(data.table)
    counts = json.dumps(report["counts"])
    run.tags({"dataset.digest": data.digest, "split.digest": data.split_digest, "split.class_counts": counts})
    run.tags({f"dataset.{key}": data.summary[key] for key in ("files", "ok", "failed")})
    if run.run_id is not None:  # a digest per split is not for nothing
        record_inputs(run, data_inputs(data, str(config.data.root)))
    run.text(json.dumps({"files": data.summary, "split": report}, indent=2, default=str), "data/summary.json")
    run.text(json.dumps(data.failed(), indent=2), "data/skipped.json")
    run.text(yaml.safe_dump(recorded(config), sort_keys=False), "config.yaml")


def data_inputs(data: Ingested, root: str) -> list[DataInput]:
    """The splits as MLflow's data sets; the name is the folder's, the digest that of a split's clips and targets."""
    columns = {"path": "string", "label": "string", "duration": "double", "frames": "long"}
    found = []
    for context in ("train", "val", "test"):
        rows = data.table[data.table["split"] == context]
        if rows.empty:
            continue
        usable = rows[rows["status"] == "ok"]
        profile = {
            "clips": len(usable),
            "failed": len(rows) - len(usable),
            "seconds": round(float(usable["duration"].sum()), 3),
            "classes": {str(name): int(count) for name, count in usable["label"].value_counts().sort_index().items()},
        }
        name = Path(root).name or root
        found.append(DataInput(name, catalog.digest(rows), context, root, profile, columns))
    return found


def record_epoch(run: Run, row: dict[str, float], reading: Reading) -> None:
    """An epoch's numbers, those of its updates, and what training warned of."""
    metrics = {ROW_NAMES[key]: value for key, value in row.items() if key in ROW_NAMES} | inside.metrics(reading)
    spent = reading.get("time", {})
    metrics |= {f"time/{name}": seconds for name, seconds in spent.items()}
    whole = sum(spent.values())
    metrics |= {f"time/{name}_share": spent[name] / whole for name in SHARES if whole}
    _record_steps(run, reading.get("steps", []))
    run.metrics(metrics, step=int(row["epoch"]))
    if reading["warnings"]:
        run.tags({f"warning.{kind}": text for kind, text in reading["warnings"].items()})


def _record_steps(run: Run, steps: list[list[float | None]]) -> None:
    for number, *values in steps:
        assert number is not None
        known = {name: x for name, x in zip(STEP_NAMES, values, strict=True) if x is not None}
        run.metrics(known, step=int(number))


def write_epochs(readings: list[Reading], report: Path) -> None:
    """time.csv, a row per epoch with the seconds of its parts, and steps.csv, a row per update that was kept."""
    times = [{"epoch": reading["epoch"], **reading.get("time", {})} for reading in readings]
    csv_table(times, ("epoch", *PARTS), report / "time.csv")
    columns = ("update", *(name.removeprefix("step/") for name in STEP_NAMES))
    rows = [dict(zip(columns, step, strict=True)) for reading in readings for step in reading.get("steps", [])]
    csv_table(rows, columns, report / "steps.csv")


def publish(run: Run, folder: Path, artifacts: str) -> None:
    """Model, report and catalog to the store.

    The last checkpoint goes along where it is another one than the best and everything together stays within `BUDGET`.
    The moments of all frames, most of a catalog, stay behind.

    Args:
        run: of the training.
        folder: of the training, with `best/`, `last/`, `report/` and `catalog.parquet`.
        artifacts: `default`, or `all`: both checkpoints and the whole catalog, whatever they take.
    """
    log_model(folder / "best", run)
    run.artifact(folder / "report", "report")
    if artifacts == "all":
        run.artifact(folder / "last", LAST_FOLDER)
        run.artifact(folder / "catalog.parquet", "data")
        return
    with tempfile.TemporaryDirectory() as place:
        table = Path(place) / "catalog.parquet"
        names = [name for name in pq.read_schema(folder / "catalog.parquet").names if name != "times"]
        pq.write_table(pq.read_table(folder / "catalog.parquet", columns=names), table)
        run.artifact(table, "data")
        best, last, rest = (_bytes(path) for path in (folder / "best", folder / "last", folder / "report"))
        if best + last + rest + table.stat().st_size <= BUDGET * best and not _same(folder / "best", folder / "last"):
            run.artifact(folder / "last", LAST_FOLDER)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _same(one: Path, other: Path) -> bool:
    """Whether two checkpoints are of the same epoch."""
    cards = [json.loads((folder / "model.json").read_text(encoding="utf-8")) for folder in (one, other)]
    return bool(cards[0]["extra"].get("epoch") == cards[1]["extra"].get("epoch"))


def summary_note(data: Ingested, stages: Stages, score: str, warnings: dict[str, str]) -> str:
    """What a run's page says first, in Markdown: result, data, warnings, and how long each stage took.

    The page shows the first lines and hides the rest, so that a table of the stages would not be seen.
    """
    lines = [f"**{score}**", ""] if score else []
    counts = data.table.loc[data.table["status"] == "ok", "split"].value_counts()
    split = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("train", "val", "test"))
    lines += [f"{data.summary['ok']} clips ({split}), {data.summary['failed']} files left out", ""]
    lines += [f"- warning: {text}" for text in warnings.values()] + ([""] if warnings else [])
    whole = sum(stages.seconds.values()) or 1.0
    took = [f"{name} {seconds:.1f} s ({seconds / whole:.0%})" for name, seconds in stages.seconds.items()]
    return "\n".join([*lines, ", ".join(took)]) + "\n"


def all_warnings(readings: list[dict[str, Any]]) -> dict[str, str]:
    """Those of all epochs, by kind."""
    return {kind: text for reading in readings for kind, text in reading["warnings"].items()}
