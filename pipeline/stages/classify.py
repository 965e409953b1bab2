"""Classify: label files with a trained model, one row per input, nothing lost.

With a table to write, rows go to a journal beside it as they come (see `stages/journal`): memory does not grow with
their number, and an interrupted run goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.addresses import shown
from pipeline.config import FetchConfig
from pipeline.data.clip_file import Policy
from pipeline.errors import DataError
from pipeline.report.parts import Parts, is_parts
from pipeline.report.tables import FLAT, TASK_COLUMNS, check_page, check_suffix, write_flat, write_results
from pipeline.stages.distributed import alone
from pipeline.stages.find import find_files
from pipeline.stages.journal import Journal, inputs_digest, opened_journal
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import bar, say
from pipeline.stages.rows import result_row

SHOWN = 5

Row = dict[str, Any]


@dataclass(frozen=True)
class Classified:
    """What a classification came to: counts, where the table is, and the rows themselves.

    `flat` is where the segments, or the values over time, are once more, a row each; None where the task has neither
    or no table was asked for. `table` is empty where the rows were not to be kept in memory.
    """

    rows: int
    ok: int
    failed: int
    out: str | None
    reasons: dict[str, int]
    table: list[Row]
    flat: str | None = None
    html: str | None = None


@dataclass
class _Tally:
    """What is counted while rows come."""

    rows: int = 0
    partial: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    shown: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> Row:
        """Count a row, and give it back."""
        self.rows += 1
        self.partial += row["status"] == "ok" and bool(row["note"])
        if row["status"] != "ok":
            self.reasons[row["status"]] += 1
            if len(self.shown) < SHOWN:
                self.shown.append(row)
        return row


def classify(
    predictor: Predictor,
    sources: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    top_k: int = 5,
    workers: int = -1,
    policy: Policy | None = None,
    fresh: bool = False,
    keep: bool = True,
    html: str | Path | None = None,
    fetch: FetchConfig | None = None,
) -> Classified:
    """Let a model answer to files: a label each, segments of labels, a number, or numbers over time.

    Args:
        predictor: the model.
        sources: files, folders (searched to any depth), globs, list files (one path a line), folders of images; files
            elsewhere (http://, https://), and objects, prefixes and globs in object storage (s3://, gs://).
        out: table to write: .csv, .jsonl, .parquet, or without a suffix a folder of Parquet parts; of a task with an
            answer for each moment, NAME.segments.csv or NAME.values.csv beside it. Where an interrupted run left its
            journal there, this one goes on with it.
        top_k: classes named per row, where each has one label.
        workers: decoding processes.
        policy: what a file may cost, and whether a damaged one is labelled; None: as `Predictor.predict`.
        fresh: begin anew, whatever an interrupted run has left.
        keep: return the rows, too; without, memory does not grow with their number.
        html: page to write as well, see `stages/archive_page`.
        fetch: what bringing files from elsewhere may cost; None: the defaults.

    Raises:
        ConfigError: a package for one of the sources is missing.
        DistributedError: several processes were started.
        DataError: an input does not exist, holds no video, or nothing could be classified; a folder `out` holds
            something else.
        UserError: another run writes `out`, or an interrupted one did other work there.
        KeyboardInterrupt: it was interrupted; `out` holds the rows so far, and the same call goes on.
    """
    alone("classify")
    if out is not None and not is_parts(out):
        check_suffix(out)
    if html is not None:
        check_page(html)
        Path(html).parent.mkdir(parents=True, exist_ok=True)  # before the work, which must not be lost for a folder
    paths = find_files([sources] if isinstance(sources, str | Path) else sources, fetch=fetch or FetchConfig())
    job, tally = _Job(predictor, paths, top_k, workers, policy, fetch), _Tally()
    table: list[Row] = []
    flat = None
    if out is None:
        table = [tally.add(row) for row in job.rows()]
        job.page(table, html)
    else:
        with opened_journal(Path(out), job.key(), fresh) as journal:
            flat = _write(job, journal, tally, out, fresh)
            job.page(journal.rows(), html)
            table = list(journal.rows()) if keep else []
            journal.remove()
    _report(tally, out)
    failed = sum(tally.reasons.values())
    where, page = (str(path) if path else None for path in (out, html))
    return Classified(tally.rows, tally.rows - failed, failed, where, dict(tally.reasons), table, flat, page)


@dataclass(frozen=True)
class _Job:
    """One classification, as `classify` was asked for it."""

    predictor: Predictor
    paths: list[str]
    top_k: int
    workers: int
    policy: Policy | None
    fetch: FetchConfig | None

    def rows(self, done: int = 0) -> Iterator[Row]:
        """The rows of all files but the first `done`."""
        with bar("classifying", len(self.paths)) as advance:
            advance(done)
            for prediction in self.predictor.predict(self.paths[done:], self.workers, self.policy, fetch=self.fetch):
                yield result_row(prediction, self.predictor, self.top_k)
                advance(1)

    def page(self, rows: Iterable[Row], html: str | Path | None) -> None:
        """Write the page of these rows, if one was asked for."""
        if html is not None:
            from pipeline.stages.archive_page import write_archive_page

            write_archive_page(rows, Path(html), self.predictor, self.workers, self.policy, self.paths, self.fetch)

    def key(self) -> dict[str, Any]:
        """What decides the rows; neither the number of processes nor the kind of table does."""
        policy = self.policy or Policy(self.predictor.plan.limits, "accept")
        return {
            "model": self.predictor.digest,
            "files": len(self.paths),
            "inputs": inputs_digest([shown(path) for path in self.paths]),  # signatures may be newer ones
            "engine": self.predictor.engine.name,
            "top_k": self.top_k,
            "partial": policy.partial,
            **{f"limits.{name}": value for name, value in dataclasses.asdict(policy.limits).items()},
        }


def _write(job: _Job, journal: Journal, tally: _Tally, out: str | Path, fresh: bool) -> str | None:
    """The rows that the journal lacks, then the table; also of an interrupted run. Returns where the flat one is."""
    columns = TASK_COLUMNS[job.predictor.task]
    parts = _parts(journal, columns, Path(out), fresh) if is_parts(out) else None
    for row in journal.rows():
        _count(row, tally, parts)
    if journal.done:
        say(f"going on after {journal.done} of {len(job.paths)} files")
    try:
        for row in job.rows(journal.done):
            journal.append(row)
            _count(row, tally, parts)
    except KeyboardInterrupt:
        _write_tables(journal, columns, out, parts)
        say(f"{out} holds the first {journal.done} of {len(job.paths)} rows; the same command goes on from there")
        raise
    return _write_tables(journal, columns, out, parts)


def _parts(journal: Journal, columns: Sequence[str], out: Path, fresh: bool) -> Parts:
    """The folder of a table; refused, it leaves no empty journal behind, which would promise more."""
    try:
        return Parts(out, columns, journal.done == 0, fresh)
    except DataError:
        if not journal.done:
            journal.remove()
        raise


def _count(row: Row, tally: _Tally, parts: Parts | None) -> None:
    tally.add(row)
    if parts is not None:
        parts.add(row)


def _write_tables(journal: Journal, columns: Sequence[str], out: str | Path, parts: Parts | None) -> str | None:
    """The table of what the journal holds, and the flat one where the task has one: returns where that is."""
    flat = None
    if parts is None:
        write_results(journal.rows(), out, columns)
    else:
        parts.finish()
    for column in set(columns) & set(FLAT):
        flat = str(write_flat(journal.rows(), column, out))
    return flat


def _report(tally: _Tally, out: str | Path | None) -> None:
    """Say what was not classified, and why."""
    failed = sum(tally.reasons.values())
    for row in tally.shown:
        say(f"not classified: {row['path']}: {row['status']}" + (f" ({row['note']})" if row["note"] else ""))
    if failed > SHOWN:
        say(f"... and {failed - SHOWN} more")
    if tally.partial:
        say(f"{tally.partial} damaged files were labelled by what decodes of them; see the column note")
    if failed == tally.rows:
        where = f"; the reasons are in {out}" if out else ""
        raise DataError(f"none of the {tally.rows} files could be classified{where}")
