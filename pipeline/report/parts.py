"""A table of results as a folder of Parquet parts, written while the work goes on: what millions of rows are kept in.

Whatever reads Parquet takes the folder for one table: `pandas.read_parquet("labels")`, DuckDB, Spark, Ray Data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.report.tables import write_results

PART_ROWS = 20_000
"""Rows of each part but the last: some MB, and what is in memory."""


def is_parts(path: str | Path) -> bool:
    """Whether a table of results is a folder: its name has no suffix."""
    return not Path(path).suffix


class Parts:
    """The folder, filled with rows in their order; a part appears whole, as soon as it is full.

    Args:
        folder: made if needed.
        columns: of `TASK_COLUMNS`.
        new: the first row is still to come: what is there is of other work.
        replace: of such, remove the parts.

    Raises:
        DataError: it is no folder, holds something else, or cannot be written.
    """

    def __init__(self, folder: Path, columns: Sequence[str], new: bool, replace: bool) -> None:
        self.folder, self.columns = folder, columns
        self._rows: list[dict[str, Any]] = []
        self._number = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if new:
                self._clear(replace)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error

    def _clear(self, replace: bool) -> None:
        for path in sorted(self.folder.iterdir()):
            if not replace or not path.match("part-*.parquet"):
                raise DataError(
                    f"{self.folder} holds {path.name} already; choose another --out"
                    + ("" if replace else ", or --fresh to replace the parts of a table")
                )
        for path in self.folder.glob("part-*.parquet"):
            path.unlink()

    def add(self, row: dict[str, Any]) -> None:
        """The next row."""
        self._rows.append(row)
        if len(self._rows) == PART_ROWS:
            self.finish()

    def finish(self) -> None:
        """Write what there is to the next part; more rows go to others."""
        if self._rows:
            write_results(self._rows, self.folder / f"part-{self._number:05d}.parquet", self.columns)
            self._rows, self._number = [], self._number + 1
