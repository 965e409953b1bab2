"""The results of a classification as one page: pictures, filters, failed files with their reasons."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.addresses import is_address
from pipeline.config import FetchConfig
from pipeline.data.clip_file import Policy
from pipeline.data.pool import Lost, Pool
from pipeline.report.html import write_page
from pipeline.report.tables import valid_text
from pipeline.stages.devices import choose_workers
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import bar
from pipeline.video.poster import poster

ROWS = 10_000
"""Rows on a page, the first ones; a browser has to hold them. The table has all."""
PICTURES = 500
"""Rows with a picture, the first ones that were classified: about 4 kB each."""
FAILED = 1000
"""Failed files that are named with their reason, the first ones; they are counted in full."""

Row = dict[str, Any]


def write_archive_page(
    rows: Iterable[Row],
    path: Path,
    predictor: Predictor,
    workers: int = -1,
    policy: Policy | None = None,
    paths: Sequence[str] | None = None,
    fetch: FetchConfig | None = None,
) -> None:
    """Write the page.

    Args:
        rows: of the results, read once; what is beyond the page's limits is counted only.
        path: of the page.
        predictor: whose answers they are.
        workers: processes that decode the pictures.
        policy: what a file may cost; None: as in training.
        paths: of the rows' files, where the rows leave out a part of them; pictures of files that lie elsewhere are
            made of files that are fetched once more.
        fetch: what fetching may cost; None: the defaults.
    """
    shown: list[Row] = []
    failed: list[Row] = []
    labels: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    pictured: list[str] = []
    for index, row in enumerate(rows):
        if row["status"] != "ok":
            reasons[row["status"]] += 1
            if len(failed) < FAILED:
                failed.append(row)
            continue
        labels[row.get("label", "")] += 1
        if len(shown) < ROWS:
            shown.append(row)
            if len(pictured) < PICTURES:
                pictured.append(paths[index] if paths else row["path"])
    limits = (policy or Policy(predictor.plan.limits)).limits
    pool = Pool(choose_workers(workers), limits.seconds, limits.memory)
    pictures = _pictures(pictured, pool, fetch or FetchConfig())
    numeric = predictor.model.numeric
    write_page(
        path,
        "archive.html",
        title=path.stem,
        model=predictor.digest[:12],
        numeric=numeric,
        labelled=sum(labels.values()),
        failed_count=sum(reasons.values()),
        labels=[] if numeric else labels.most_common(),
        reasons=reasons.most_common(),
        failed=[[valid_text(row["path"]), row["status"], row["note"]] for row in failed],
        rows=[_shown(row) for row in shown],
        pictures=pictures,
    )


def _pictures(paths: list[str], pool: Pool, fetch: FetchConfig) -> list[str]:
    """A JPEG in base64 for each path; empty where there is none."""
    found = []
    with pool, bar("pictures", len(paths)) as advance:
        for picture in _posters(paths, pool, fetch):
            found.append("" if isinstance(picture, Lost) else base64.b64encode(picture).decode())
            advance(1)
    return found


def _posters(paths: list[str], pool: Pool, fetch: FetchConfig) -> Iterator[bytes | Lost]:
    if not any(is_address(path) for path in paths):
        yield from pool.run(poster, paths)
        return
    from pipeline.data.remote.fetcher import run_fetched

    yield from run_fetched(pool, poster, paths, fetch)


def _shown(row: Row) -> list[Any]:
    """Path, label, number to sort by, text beside it, seconds of the clip, note: what a line of the page shows."""
    label, number, text = row.get("label", ""), None, ""
    if "probability" in row:
        number = row["probability"]
        text = ", ".join(f"{other['label']} {other['probability']:.2f}" for other in row["top_k"][1:3])
    elif "segments" in row:
        text = ", ".join(f"{part['label']} {part['start']:.1f}-{part['end']:.1f} s" for part in row["segments"][:4])
        text += ", ..." if len(row["segments"]) > 4 else ""
    elif "value" in row:
        number = row["value"]
    elif "values" in row:
        values = [item["value"] for item in row["values"]]
        number, text = sum(values) / len(values), f"{min(values):.3g} to {max(values):.3g} over {len(values)} moments"
    rounded = None if number is None else round(number, 5)
    return [valid_text(row["path"]), label, rounded, text, round(row["duration"], 2), row["note"]]
