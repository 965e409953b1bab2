"""Tables: results of a classification, scores per class, and the text that the terminal shows."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import ConfigError, DataError
from pipeline.report.bootstrap import format_interval

COLUMNS = (
    "path",
    "status",
    "label",
    "probability",
    "top_k",
    "margin",
    "frames",
    "duration",
    "note",
    "model",
    "seconds",
)
"""Columns of a table of results, in their order. `top_k` is a list of `{label, probability}`, best first;
`margin` the distance of the best probability to the runner-up; `duration` and `seconds` are in seconds, the
clip's and the work's; `note` what is wrong with the file, labelled or not; `model` the digest of the
checkpoint. A row that is not `ok` has None where there is nothing to say."""
SUFFIXES = (".csv", ".jsonl", ".parquet")
SHOWN = 10
"""Files without a score that the terminal names; the others are counted."""
PER_CLASS_COLUMNS = (
    "class",
    "support",
    *(f"{score}{end}" for score in ("precision", "recall", "f1") for end in ("", "_low", "_high")),
)


def check_suffix(path: str | Path) -> str:
    """The suffix of a table of results, in lower case.

    Cheap, so that it can be called before hours of work.

    Raises:
        ConfigError: the suffix is none of the three that can be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a table of results is written as .csv, .jsonl or .parquet; choose one")
    return suffix


def write_results(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    r"""Write a table of results, one row per input in the order given, with exactly `COLUMNS`.

    A missing key is written as missing; bytes of a file name that are not UTF-8 are written as \xNN, so that
    one odd name does not make the table unreadable. The file appears whole or not at all: it is written
    beside its place and then moved there. In CSV `top_k` is a JSON string, missing is an empty field.

    Args:
        rows: one dictionary per input file.
        path: ends in .csv, .jsonl or .parquet.

    Raises:
        ConfigError: another suffix.
        DataError: the file cannot be written.
        ValueError: a row has a key that is no column.
    """
    suffix = check_suffix(path)
    unknown = sorted({key for row in rows for key in row} - set(COLUMNS))
    if unknown:
        raise ValueError(f"results have no column {unknown[0]}")
    complete = [{column: row.get(column) for column in COLUMNS} for row in rows]
    for row in complete:
        row["path"] = _valid_text(str(row["path"]))
    writer = {".csv": _results_csv, ".jsonl": _results_jsonl, ".parquet": _results_parquet}[suffix]
    _atomically(Path(path), lambda part: writer(complete, part))


def per_class_table(metrics: dict[str, Any], path: str | Path) -> None:
    """Write the `per_class` rows of `evaluate_predictions` as CSV; None becomes an empty field.

    Raises:
        DataError: the file cannot be written.
    """

    def write(part: Path) -> None:
        with _text(part) as file:
            table = csv.DictWriter(file, PER_CLASS_COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(metrics["per_class"])

    _atomically(Path(path), write)


def print_metrics(metrics: dict[str, Any], width: int = 100) -> str:
    """The numbers of `evaluate_predictions` as plain text of at most `width` columns.

    Top-1 with its interval comes first, coverage and the majority-class rate right under it: an accuracy says
    nothing without them.
    """
    majority = metrics["majority"]
    groups = metrics["groups"]
    k = min(5, len(metrics["per_class"]))
    lines = [
        f"top-1      {_score(metrics, 'top1')}",
        f"top-{k}      {_score(metrics, 'top5')}",
        f"macro F1   {_score(metrics, 'macro_f1')}",
        f"log loss   {metrics['log_loss']:.3f}",
        f"coverage   {metrics['n']}/{metrics['expected']} clips, {groups} group{'s' if groups != 1 else ''}",
        f"majority   {majority['rate']:.3f} (always answering '{majority['class']}')",
    ]
    failed = metrics["failed"]
    lines += [f"not scored {_valid_text(entry['path'])}: {entry['reason']}" for entry in failed[:SHOWN]]
    if len(failed) > SHOWN:
        lines.append(f"not scored {len(failed) - SHOWN} more")
    if metrics["note"]:
        lines.append(f"note       {metrics['note']}")
    return "\n".join([*lines, "", _per_class_text(metrics["per_class"], width)])


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns in plain text, for a terminal and for a pipe alike: nothing is cut or wrapped."""
    cells = [[_valid_text(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def write_json(value: Any, path: str | Path) -> None:
    """Write plain values as JSON, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    _atomically(Path(path), lambda part: _write_text(text, part))


def _write_text(text: str, part: Path) -> None:
    with _text(part) as file:
        file.write(text + "\n")


def _score(numbers: dict[str, Any], key: str) -> str:
    """One score of a dictionary with its interval."""
    return format_interval(numbers[key], numbers[f"{key}_low"], numbers[f"{key}_high"])


def _per_class_text(per_class: Sequence[dict[str, Any]], width: int) -> str:
    """The rows per class as an aligned table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("class", overflow="ellipsis", no_wrap=True)
    table.add_column("clips", justify="right", no_wrap=True)
    for name in ("precision", "recall", "F1"):
        table.add_column(name, no_wrap=True)
    for row in per_class:
        scores = [_score(row, key) for key in ("precision", "recall", "f1")]
        table.add_row(Text(row["class"]), str(row["support"]), *scores)
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _results_csv(rows: list[dict[str, Any]], part: Path) -> None:
    with _text(part) as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for row in rows:
            top_k = None if row["top_k"] is None else json.dumps(row["top_k"], ensure_ascii=False)
            table.writerow({**row, "top_k": top_k})


def _results_jsonl(rows: list[dict[str, Any]], part: Path) -> None:
    with _text(part) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _results_parquet(rows: list[dict[str, Any]], part: Path) -> None:
    """The types are fixed, so that a table in which every row failed can be joined with any other."""
    import pyarrow as pa
    from pyarrow import parquet

    candidate = pa.struct([("label", pa.string()), ("probability", pa.float64())])
    types = {
        "probability": pa.float64(),
        "top_k": pa.list_(candidate),
        "margin": pa.float64(),
        "frames": pa.int64(),
        "duration": pa.float64(),
        "seconds": pa.float64(),
    }
    schema = pa.schema([(column, types.get(column, pa.string())) for column in COLUMNS])
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), part)


def _text(path: Path) -> TextIO:
    """A UTF-8 file for writing, lines ending in a line feed on every system."""
    return path.open("w", encoding="utf-8", newline="")


def _valid_text(path: str) -> str:
    r"""A path as Python holds it, with `\xNN` for the bytes that are not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then move it there; leave nothing behind when that fails."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        write(part)
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _umask() -> int:
    """The permission bits that new files do not get; mkstemp gives the owner alone the right to read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
