"""A classification as an MLflow run: what was read, how fast, what failed and why, and whether the answers drift away
from what the model was trained and tested on.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import TrackingConfig
from pipeline.report.drift import drift_figure, drift_text
from pipeline.report.tables import FLAT, TASK_COLUMNS, csv_table, write_flat, write_json, write_results
from pipeline.stages.classify import Classified
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import say
from pipeline.stages.reference import answers, drifts
from pipeline.tracking.datasets import DataInput, record_inputs
from pipeline.tracking.environment import record_environment
from pipeline.tracking.runs import Run, end_early, start
from pipeline.tracking.system import system_metrics

EXPERIMENT = "video-lstm-classify"
"""Beside the trainings, in whose table such runs would have none of the columns."""
TABLE_BYTES = 20_000_000
"""Largest table of results that goes to the store."""
SAMPLE = 1 << 16
"""Bytes at a file's beginning, middle and end that its digest reads."""


def classify_tracked(
    classify: Callable[[], Classified],
    predictor: Predictor,
    model: str,
    sources: Sequence[str | Path],
    uri: str | None = None,
    experiment: str = EXPERIMENT,
) -> Classified:
    """Classify, and record it as a run; one that fails is marked as failed, with its reason.

    Args:
        classify: does the work.
        predictor: what it works with.
        model: MODEL as the user named it.
        sources: as the user named them.
        uri: MLflow store; None: the default one.
        experiment: of the run.

    Raises:
        TrackingError: the store does not answer at the start; later on that costs the record alone.
    """
    config = TrackingConfig(uri=uri, experiment=experiment)
    first = str(sources[0])
    run = start(config, f"classify {Path(first).name or first}" + (", ..." if len(sources) > 1 else ""))
    try:
        record_environment(run, "classify")
        _describe(run, predictor, model, sources)
        began = time.perf_counter()
        with system_metrics(run, config.system_seconds):
            result = classify()
        _record(run, result, predictor, first, time.perf_counter() - began)
    except BaseException as error:
        end_early(run, error)
        raise
    run.finish("FINISHED")
    return result


def _describe(run: Run, predictor: Predictor, model: str, sources: Sequence[str | Path]) -> None:
    """What is known before the first file."""
    run.params({"model": model, "sources": json.dumps([str(source) for source in sources]), "task": predictor.task})
    extra = predictor.card.extra
    known = {"model.digest": predictor.digest, "model.run_id": extra.get("run_id"), "model.epoch": extra.get("epoch")}
    run.tags({name: value for name, value in known.items() if value is not None})


def _record(run: Run, result: Classified, predictor: Predictor, source: str, seconds: float) -> None:
    """What it came to."""
    parts = drifts(predictor.card.extra.get("reference", {}), result.table)
    paths = [str(row["path"]) for row in result.table]
    profile = {"files": result.rows, "ok": result.ok, "failed": result.failed, "reasons": result.reasons}
    data = DataInput(Path(source).name or source, inputs_digest(paths), "classify", source, profile)
    record_inputs(run, [data])
    run.tags({"inputs.digest": data.digest})
    run.metrics(_numbers(result, seconds) | drift_metrics(parts), 0)
    for text in warnings_of(parts):
        say(f"warning: {text}")
    if drifted := warnings_of(parts):
        run.tags({"warning.drift": "; ".join(drifted)})
    with tempfile.TemporaryDirectory() as place:
        _write(Path(place), result, predictor, parts)
        run.artifact(place, "report")
    run.note(_note(result, seconds, parts))


def _numbers(result: Classified, seconds: float) -> dict[str, float]:
    """Counts, speed and failures by reason."""
    labels, sure, _ = answers(result.table)
    watched = sum(float(row.get("duration") or 0.0) for row in result.table)
    found = {
        "classify/files": float(result.rows),
        "classify/ok": float(result.ok),
        "classify/failed": float(result.failed),
        "classify/coverage": result.ok / result.rows,
        "classify/seconds": seconds,
        "classify/files_per_second": result.rows / seconds,
        "classify/video_seconds_per_second": watched / seconds,
    }
    found |= {"classify/mean_probability": sum(sure) / len(sure)} if sure else {}
    found |= {f"failed/{reason}": float(count) for reason, count in result.reasons.items()}
    return found | {f"labels/{_plain(name)}": float(count) for name, count in Counter(labels).items()}


def _plain(name: str) -> str:
    """A class name as MLflow takes it in a metric's name."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-. ") else "_" for letter in name)


def drift_metrics(parts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of `drifts`, by their names in the run."""
    return {
        f"drift/{part['name']}_{key}": float(part[key]) for part in parts for key in ("psi", "js", "chance", "drift")
    }


def warnings_of(parts: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each comparison that drifts, with what to do."""
    remedy = {
        "labels": "look at some of the clips, and train with clips like these if the labels are wrong",
        "values": "look at some of the clips, and train with clips like these if the values are wrong",
        "confidence": "label a hundred of these clips and evaluate the model on them before trusting its answers",
    }
    where = {"labels": "training clips", "values": "training clips", "confidence": "test clips"}
    return [
        f"{part['title']}: not as in the {where[part['name']]} ({drift_text(part)}); {remedy[part['name']]}"
        for part in parts
        if part["drift"]
    ]


def _write(folder: Path, result: Classified, predictor: Predictor, parts: list[dict[str, Any]]) -> None:
    """The table of results, the labels' counts, the reasons, and the drift."""
    labels, _, _ = answers(result.table)
    columns = TASK_COLUMNS[predictor.task]
    write_results(result.table, folder / "results.csv", columns)
    for column in set(columns) & set(FLAT):
        write_flat(result.table, column, folder / "results.csv")
    for path in folder.glob("results*.csv"):
        if path.stat().st_size > TABLE_BYTES:
            path.unlink()
    failed = [{k: str(row.get(k) or "") for k in ("path", "status", "note")} for row in result.table]
    csv_table([row for row in failed if row["status"] != "ok"], ("path", "status", "note"), folder / "failed.csv")
    counts = [{"label": name, "files": count} for name, count in Counter(labels).most_common()]
    if counts:
        csv_table(counts, ("label", "files"), folder / "labels.csv")
    if parts:
        write_json(parts, folder / "drift.json")
        drift_figure(parts, folder / "drift.png")


def _note(result: Classified, seconds: float, parts: Sequence[dict[str, Any]]) -> str:
    """What the run's page says first, in Markdown."""
    lines = [f"**{result.ok} of {result.rows} files classified**, {result.rows / seconds:.1f} files/s", ""]
    lines += [f"- {count} files: {reason}" for reason, count in result.reasons.items()] + [""]
    lines += [f"- warning: {text}" for text in warnings_of(parts)]
    if parts and not warnings_of(parts):
        lines.append("The answers do not drift away from the training and test clips.")
    return "\n".join(lines) + "\n"


def inputs_digest(paths: Sequence[str]) -> str:
    """Sha256 (hex) of what was classified, in any order and place: of each file the size and a sample of its bytes.

    Three samples of `SAMPLE` bytes name a video file without reading an archive twice. A folder of images is named by
    its files' names and sizes, what is no file here by its address.
    """
    return hashlib.sha256("\n".join(sorted(_file_digest(path) for path in paths)).encode()).hexdigest()


def _file_digest(path: str) -> str:
    found = hashlib.sha256()
    try:
        if os.path.isdir(path):
            listed = sorted((one.name, one.stat().st_size) for one in os.scandir(path) if one.is_file())
            return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        size = os.path.getsize(path)
        found.update(str(size).encode())
        with open(path, "rb") as file:
            for place in sorted({0, max(0, size // 2), max(0, size - SAMPLE)}):
                file.seek(place)
                found.update(file.read(SAMPLE))
    except OSError:
        return hashlib.sha256(os.fsencode(path)).hexdigest()
    return found.hexdigest()
