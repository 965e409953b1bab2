"""What the commands print for a person, where there is no --json."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.report.tables import text_table

if TYPE_CHECKING:  # what a command prints must not cost it the imports of the others
    from pipeline.stages.classify import Classified
    from pipeline.stages.doctor import Check
    from pipeline.stages.explain import Explained
    from pipeline.stages.extract_all import Extracted
    from pipeline.stages.find_rate import FoundRate
    from pipeline.stages.ingest import Ingested


def ingest_text(result: Ingested, out: Path | None) -> str:
    """Clips per class and split (over time: seconds), or what values they have; failed files' reasons, the digests."""
    lines = [_split_text(result), _counts_text(result.summary)]
    lines.append(f"units that never straddle a split: {result.table['unit'].nunique()}")
    lines.append(f"near-duplicates in different splits: {len(result.leaks)}")
    lines.append(f"dataset digest {result.digest[:12]}, split digest {result.split_digest[:12]}")
    if out is not None:
        lines.append(f"catalog {out}")
    return "\n".join(lines)


def _split_text(result: Ingested) -> str:
    from pipeline.data.strata import class_counts, extremes, seconds_of_classes

    names = ("train", "val", "test")
    parts = {name: result.table[result.table["split"] == name] for name in names}
    everything = ["all", *(str(len(part)) for part in parts.values())]
    if result.task == "label":
        counts = {name: class_counts(part, result.classes) for name, part in parts.items()}
        rows = [[label, *(str(counts[name][label]) for name in names)] for label in result.classes]
        return text_table(["class", *names], [*rows, everything])
    decoded = {name: part[part["status"] == "ok"] for name, part in parts.items()}
    if result.task == "frame_label":
        seconds = {name: seconds_of_classes(part, result.classes) for name, part in decoded.items()}
        rows = [[label, *(f"{seconds[name].get(label, 0.0):.1f} s" for name in names)] for label in result.classes]
        return text_table(["class", *names], [*rows, ["clips", *everything[1:]]])
    values = {name: extremes(part) for name, part in decoded.items()}
    rows = [[key, *(f"{values[name].get(key, math.nan):.4g}" for name in names)] for key in ("min", "mean", "max")]
    return text_table(["value", *names], [*rows, ["clips", *everything[1:]]])


def extract_text(result: Extracted) -> str:
    """How much was computed, and where it is."""
    lines = [f"{result.clips} clips, {result.failed} failed; {result.views} clip views"]
    lines += [f"  {count} x {reason}" for reason, count in result.reasons.items()]
    lines.append(f"{result.computed} computed now, {result.present} there before, in {result.store}")
    if result.out is not None:
        lines.append(f"exported {result.out}")
    return "\n".join(lines)


def explain_text(result: Explained) -> str:
    """A line per file, and where its folder is."""
    rows = [[row["path"], row.get("answer") or row["status"], row.get("folder") or ""] for row in result.rows]
    return text_table(["path", "answer", "folder"], rows)


def classify_text(result: Classified) -> str:
    """The table itself where no file was asked for, else counts and where the file is."""
    if result.out is not None:
        counts = [f"{result.rows} rows, {result.ok} classified, {result.failed} failed"]
        counts += [f"  {count} x {reason}" for reason, count in result.reasons.items()]
        counts.append(f"table {result.out}")
        counts += [f"flat  {result.flat}"] if result.flat else []
        return "\n".join([*counts, *([f"page  {result.html}"] if result.html else [])])
    one = next((row for row in result.table if row["status"] == "ok"), {})
    if "segments" in one:
        return text_table(["path", "start", "end", "label", "probability"], _over_time(result.table, "segments"))
    if "values" in one:
        return text_table(["path", "time", "value"], _over_time(result.table, "values"))
    if "value" in one:
        rows = [[row["path"], f"{row['value']:.4g}" if "value" in row else row["status"]] for row in result.table]
        return text_table(["path", "value"], rows)
    rows = [
        [row["path"], row.get("label") or row["status"], f"{row['probability']:.3f}" if "probability" in row else ""]
        for row in result.table
    ]
    return text_table(["path", "label", "probability"], rows)


def _over_time(table: list[dict[str, Any]], column: str) -> list[list[str]]:
    """A line per segment or per moment, a file's name on its first; one for a file that could not be read."""
    lines = []
    for row in table:
        if column not in row:
            lines.append([row["path"], row["status"], *[""] * (1 if column == "values" else 3)])
        for index, item in enumerate(row.get(column, ())):
            numbers = {"start": ".2f", "end": ".2f", "time": ".2f", "probability": ".3f", "value": ".4g"}
            cells = [format(value, numbers.get(key, "")) for key, value in item.items()]
            lines.append([row["path"] if index == 0 else "", *cells])
    return lines


def doctor_text(checks: list[Check]) -> str:
    """One line per check; the remedy under one that failed."""
    lines = []
    for check in checks:
        lines.append(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
        if not check.ok and check.fix:
            lines.append(f"      fix: {check.fix}")
    return "\n".join(lines)


def files_text(found: dict[str, Any]) -> str:
    """Each file that gives no clip with its reason, the unusual ones, then the counts."""
    lines = [
        f"{item['path']}: {item['reason']}" + (f" ({item['detail']})" if item["detail"] else "")
        for item in found["failures"]
    ]
    lines += [f"{item['path']}: ok, {item['marks']}" for item in found["marked"]]
    return "\n".join([*lines, _counts_text(found)])


def _counts_text(summary: dict[str, Any]) -> str:
    reasons = "".join(f"\n  {count} x {reason}" for reason, count in summary["reasons"].items())
    return f"{summary['files']} files, {summary['ok']} ok, {summary['failed']} failed{reasons}"


def rate_text(found: FoundRate) -> str:
    """The suggested learning rate, and where the picture is."""
    figure = f"picture     {found.folder}/report/learning_rate.png"
    if found.suggestion is None:
        return f"suggestion  none: no rate lowers the loss by more than it varies between batches\n{figure}"
    return f"suggestion  --training.learning_rate {found.suggestion:.2g}\n{figure}"
