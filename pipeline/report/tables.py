"""Tables as files: results of a classification, scores per class; and as plain text."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from pipeline.disk import replacing
from pipeline.errors import ConfigError, DataError

WORK = ("frames", "duration", "note", "model", "seconds")
COLUMNS = ("path", "status", "label", "probability", "top_k", "margin", *WORK)
"""Columns of a table of results, in their order. `top_k` is a list of `{label, probability}`, best first;
`margin` the distance of the best probability to the runner-up; `duration` and `seconds` are in seconds, the
clip's and the work's; `note` what is wrong with the file, labelled or not; `model` the digest of the
checkpoint. A row that is not `ok` has None where there is nothing to say."""
TASK_COLUMNS = {
    "label": COLUMNS,
    "frame_label": ("path", "status", "label", "segments", *WORK),
    "regression": ("path", "status", "value", *WORK),
    "frame_regression": ("path", "status", "values", *WORK),
}
"""The columns of each task. `segments` is a list of `{start, end, label, probability}`, `values` of `{time, value}`,
in seconds and in the order of time; `label` beside `segments` is the one that lasts longest."""
FLAT = {"segments": ("path", "start", "end", "label", "probability"), "values": ("path", "time", "value")}
"""Columns of the flat tables that lists in a table of results are written to as well, a row per item."""
SUFFIXES = (".csv", ".jsonl", ".parquet")
ROWS_AT_ONCE = 8192
"""Rows of a group of a Parquet file, which is what has to be in memory."""
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


def check_page(path: str | Path) -> None:
    """Raises ConfigError where a page's name does not end in .html: it would be no page to a browser."""
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{path}: the page is written as .html")


def write_results(rows: Iterable[dict[str, Any]], path: str | Path, columns: Sequence[str] = COLUMNS) -> None:
    r"""Write a table of results, one row per input in the order given, with exactly the columns named.

    A missing key is written as missing; bytes of a file name that are not UTF-8 are written as \xNN, so that
    one odd name does not make the table unreadable. The file appears whole or not at all: it is written
    beside its place and then moved there. In CSV a list is a JSON string, missing is an empty field.

    Args:
        rows: one dictionary per input file; read once and never all in memory, so an iterator may give them.
        path: ends in .csv, .jsonl or .parquet.
        columns: of `TASK_COLUMNS`.

    Raises:
        ConfigError: another suffix.
        DataError: the file cannot be written.
        ValueError: a row has a key that is no column.
    """
    suffix = check_suffix(path)
    writer = {".csv": _results_csv, ".jsonl": _results_jsonl, ".parquet": _results_parquet}[suffix]
    _atomically(Path(path), lambda part: writer(_complete(rows, columns), columns, part))


def _complete(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each row with every column, and a path that can be written."""
    known = set(columns)
    for row in rows:
        if not row.keys() <= known:
            raise ValueError(f"results have no column {min(row.keys() - known)}")
        yield {column: row.get(column) for column in columns} | {"path": valid_text(str(row["path"]))}


def write_flat(rows: Iterable[dict[str, Any]], column: str, out: str | Path) -> Path:
    """Write the lists of one column of a table of results as a CSV beside it, a row per item: NAME.COLUMN.csv.

    Args:
        rows: as of `write_results`; one without the list adds nothing.
        column: of `FLAT`.
        out: where the table of results is.

    Returns:
        Where it is.

    Raises:
        DataError: the file cannot be written.
    """

    def write(part: Path) -> None:
        with _text(part) as file:
            table = csv.DictWriter(file, FLAT[column], lineterminator="\n")
            table.writeheader()
            for row in rows:
                table.writerows({"path": valid_text(str(row["path"])), **item} for item in row.get(column) or ())

    path = Path(out).with_suffix(f".{column}.csv")
    _atomically(path, write)
    return path


def per_class_table(metrics: dict[str, Any], path: str | Path) -> None:
    """Write the `per_class` rows of `evaluate_predictions` as CSV; None becomes an empty field.

    Raises:
        DataError: the file cannot be written.
    """
    csv_table(metrics["per_class"], PER_CLASS_COLUMNS, path)


def csv_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: str | Path) -> None:
    """Write rows of plain values as CSV, whole or not at all; None and what is missing become empty fields.

    Raises:
        DataError: the file cannot be written.
    """

    def write(part: Path) -> None:
        with _text(part) as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)

    _atomically(Path(path), write)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns in plain text, for a terminal and for a pipe alike: nothing is cut or wrapped."""
    cells = [[valid_text(cell) for cell in row] for row in (header, *rows)]
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


def _results_csv(rows: Iterable[dict[str, Any]], columns: Sequence[str], part: Path) -> None:
    with _text(part) as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        for row in rows:
            lists = {key: json.dumps(x, ensure_ascii=False) for key, x in row.items() if isinstance(x, list)}
            table.writerow(row | lists)


def _results_jsonl(rows: Iterable[dict[str, Any]], columns: Sequence[str], part: Path) -> None:
    with _text(part) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _results_parquet(rows: Iterable[dict[str, Any]], columns: Sequence[str], part: Path) -> None:
    """The types are fixed, so that a table in which every row failed can be joined with any other."""
    import pyarrow as pa
    from pyarrow import parquet

    candidate = pa.struct([("label", pa.string()), ("probability", pa.float64())])
    segment = pa.struct([("start", pa.float64()), ("end", pa.float64()), *candidate])
    types = {
        "probability": pa.float64(),
        "top_k": pa.list_(candidate),
        "segments": pa.list_(segment),
        "value": pa.float64(),
        "values": pa.list_(pa.struct([("time", pa.float64()), ("value", pa.float64())])),
        "margin": pa.float64(),
        "frames": pa.int64(),
        "duration": pa.float64(),
        "seconds": pa.float64(),
        "fold": pa.int64(),
        "true_value": pa.float64(),
    }
    schema = pa.schema([(column, types.get(column, pa.string())) for column in columns])
    remaining = iter(rows)
    with parquet.ParquetWriter(part, schema) as file:
        while block := list(islice(remaining, ROWS_AT_ONCE)):
            file.write_table(pa.Table.from_pylist(block, schema=schema))


def _text(path: Path) -> TextIO:
    """A UTF-8 file for writing, lines ending in a line feed on every system."""
    return path.open("w", encoding="utf-8", newline="")


def valid_text(path: str) -> str:
    r"""A path as Python holds it, with `\xNN` for the bytes that are not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then move it there; leave nothing behind when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            write(part)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
