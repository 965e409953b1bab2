"""Explain: what an answer rests on, moment by moment, place by place and unit by unit, as pictures and as numbers."""

from __future__ import annotations

import difflib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.data.catalog import Policy
from pipeline.data.pool import Lost
from pipeline.data.shown import ShownClip, load_shown
from pipeline.data.stream import decoding_pool
from pipeline.disk import refusal
from pipeline.errors import ConfigError, DataError, VideoError
from pipeline.report.explanation import Explanation
from pipeline.report.explanation_files import PARTS, write_explanation
from pipeline.report.tables import valid_text, write_results
from pipeline.stages.devices import choose_workers
from pipeline.stages.distributed import alone
from pipeline.stages.explain_clip import Question, explain_clip
from pipeline.stages.find import find_files
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import bar, say

COLUMNS = ("path", "status", "answer", "explained", "score", "folder", "note", "model", "seconds")
TABLE = "explanations.csv"
WORKERS = 2
"""Decoding processes at most: reading a clip takes less time than explaining it."""


@dataclass(frozen=True)
class Explained:
    """What became of the files.

    Attributes:
        rows: one per file with the columns `COLUMNS`, as in the table `OUT/explanations.csv`.
        ok, failed: how many.
        out: the folder.
    """

    rows: list[dict[str, Any]]
    ok: int
    failed: int
    out: str


def explain(
    predictor: Predictor,
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    label: str | None = None,
    moment: float | None = None,
    parts: Sequence[str] = PARTS,
    workers: int = -1,
    policy: Policy | None = None,
) -> Explained:
    """Explain the answers of a model to files, in a folder per file.

    Args:
        predictor: the model.
        sources: files, folders, globs, lists; as of `classify`.
        out: folder, made if needed.
        label: the class to explain; None: the model's own answer.
        moment: seconds; tasks with an answer for each moment: explain the one at this moment. None: the label that
            lasts longest, or the last number.
        parts: what to write, of `PARTS`.
        workers: decoding processes.
        policy: what a file may cost, and whether a damaged one is explained; None: as `Predictor.predict`.

    Raises:
        ConfigError: a label that the model does not know, a moment or a label that its task does not have.
        DataError: an input does not exist, nothing could be explained, or the folder cannot be written.
        DistributedError: several processes were started.
    """
    alone("explain")
    question = asked(predictor, label, moment)
    policy = policy or Policy(predictor.plan.limits, "accept")
    paths = find_files([sources] if isinstance(sources, str | Path) else sources)
    folders = folder_names(paths)
    root = Path(out)
    made = _made(root)
    rows: list[dict[str, Any]] = []
    with bar("explaining", len(paths)) as advance:
        for path, shown in zip(paths, read(predictor, paths, workers, policy), strict=True):
            rows.append(_row(predictor, question, shown, made / folders[path], parts))
            write_results(rows, root / TABLE, COLUMNS)  # after each file: an interruption keeps what is done
            advance(1)
    failed = [row for row in rows if row["status"] != "ok"]
    for row in failed:
        say(f"not explained: {row['path']}: {row['status']}" + (f" ({row['note']})" if row["note"] else ""))
    if len(failed) == len(rows):
        raise DataError(f"none of the {len(rows)} files could be explained; the reasons are in {root / TABLE}")
    return Explained(rows, len(rows) - len(failed), len(failed), str(root))


def asked(predictor: Predictor, label: str | None = None, moment: float | None = None) -> Question:
    """The question, checked against what the model can answer.

    Raises:
        ConfigError: see `explain`.
    """
    if moment is not None and not predictor.model.per_moment:
        raise ConfigError(
            f"--moment is for tasks with an answer for each moment; this model's task is {predictor.task}"
        )
    if label is None:
        return Question(None, moment)
    if predictor.model.numeric:
        raise ConfigError(f"--label is for models of classes; this model's task is {predictor.task}")
    if label not in predictor.classes:
        near = difflib.get_close_matches(label, predictor.classes, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"its classes are {', '.join(predictor.classes)}"
        raise ConfigError(f"--label is '{label}', which the model does not know; {hint}")
    return Question(predictor.classes.index(label), moment)


def read(predictor: Predictor, paths: Sequence[str], workers: int, policy: Policy) -> Iterator[ShownClip]:
    """Each file in order, read in processes of their own; one that costs a process its life is an error of its own."""
    plan = predictor.reading(policy)
    with decoding_pool(plan, min(WORKERS, choose_workers(workers))) as pool:
        for path, loaded in zip(paths, pool.run(partial(load_shown, plan), paths, ahead=WORKERS), strict=True):
            if isinstance(loaded, Lost):
                loaded = ShownClip(path, None, VideoError(path, loaded.reason, loaded.detail))
            yield loaded


def _row(
    predictor: Predictor, question: Question, shown: ShownClip, folder: Path, parts: Sequence[str]
) -> dict[str, Any]:
    """Explain one file that was read, and write its folder."""
    if shown.error is not None:
        error = shown.error
        row = {"path": error.path, "status": str(error.reason), "note": error.detail}
        return row | {"model": predictor.digest}
    started = time.perf_counter()
    explanation = explain_clip(predictor, shown, question)
    _write(explanation, folder, parts)
    return {
        "path": shown.path,
        "status": "ok",
        "answer": explanation.answer,
        "explained": explanation.explained,
        "score": explanation.score,
        "folder": str(folder),
        "note": shown.note,
        "model": predictor.digest,
        "seconds": time.perf_counter() - started,
    }


def _write(explanation: Explanation, folder: Path, parts: Sequence[str]) -> None:
    """All files of one explanation; each takes its place once all are whole.

    Raises:
        DataError: they cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".explaining-", dir=folder.parent) as temporary:
            write_explanation(explanation, Path(temporary), parts)
            for file in sorted(Path(temporary).iterdir()):
                file.replace(folder / file.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written {refusal(error)}") from error


def _made(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be made {refusal(error)}") from error
    return root


def folder_names(paths: Sequence[str]) -> dict[str, str]:
    """A folder for each file, named after it; a number where several have the same name."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in paths:
        stem = valid_text(Path(path).stem or Path(path).name or "clip").lstrip(".") or "clip"
        name, number = stem, 1
        while name.lower() in taken:  # on some systems "A" and "a" are one folder
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names[path] = name
    return names
