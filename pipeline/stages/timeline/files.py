"""The files of one recording: all of them whole, or none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.disk import replacing

SUFFIXES = (".events.jsonl", ".events.csv", ".srt", ".vtt", ".probabilities.parquet", ".timeline.png")
BATCH = 4096
"""Rows that are written at once."""


def names_of(files: Sequence[str]) -> list[str]:
    """A name for each file's results: its own without suffix; one that is taken gets a number, in the files' order."""
    taken: set[str] = set()
    found = []
    for file in files:
        base = Path(os.path.abspath(file)).stem or "recording"
        name, number = base, 1
        while name.casefold() in taken:  # some file systems do not tell A from a
            number += 1
            name = f"{base}-{number}"
        taken.add(name.casefold())
        found.append(name)
    return found


@contextmanager
def output_files(folder: Path, name: str) -> Iterator[dict[str, Path]]:
    """Suffix -> a file to be filled in the block; they take their places after it. Where it fails nothing is left."""
    with ExitStack() as stack:
        yield {suffix: stack.enter_context(replacing(folder / f"{name}{suffix}")) for suffix in SUFFIXES}


class ProbabilityTable:
    """A Parquet file of probabilities over time, written some rows at a time.

    Columns: `time`, float64 seconds; then one for each class by its name, float32. A class named time has the column
    `time (label)`.

    Args:
        path: the file.
        classes: K names.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        names = [name if name != "time" else "time (label)" for name in classes]
        self._schema = pa.schema([("time", pa.float64()), *((name, pa.float32()) for name in names)])
        self._times: list[float] = []
        self._rows = np.empty((BATCH, len(names)), dtype=np.float32)
        self._writer = pq.ParquetWriter(path, self._schema)

    def __enter__(self) -> ProbabilityTable:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write()
        finally:
            self._writer.close()

    def add(self, time: float, probabilities: NDArray[np.floating]) -> None:
        """One row: seconds, and (K)."""
        self._rows[len(self._times)] = probabilities
        self._times.append(time)
        if len(self._times) == BATCH:
            self._write()

    def _write(self) -> None:
        if not self._times:
            return
        rows = self._rows[: len(self._times)]
        columns = [pa.array(self._times, pa.float64())]
        columns += [pa.array(np.ascontiguousarray(rows[:, k])) for k in range(rows.shape[1])]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._times = []
