"""A comparison of two models, for the terminal and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.comparison_figure import comparison_figure
from pipeline.report.tables import csv_table, text_table, valid_text, write_json
from pipeline.report.tasks import TITLES

SHOWN = 20
"""Clips on which the models differ that the terminal shows; the table has all."""

COLUMNS = {
    "label": ("path", "true", "a", "probability_a", "b", "probability_b", "right"),
    "other": ("path", "a", "b", "difference"),
}
"""Columns of the table of clips on which the models differ."""


def sentence(found: dict[str, Any]) -> str:
    """What the comparison shows, in one sentence: which model is better, or that this cannot be told."""
    title, names = TITLES[found["score"]], {side: found[side]["name"] for side in "ab"}
    of = f"on {found['n']} clips of {found['groups']} sources: {title} {gap_text(found)}"
    if found["better"] == "undecided":
        return f"neither is better beyond chance {of}"
    return f"{names[found['better']]} is better {of}"


def gap_text(found: dict[str, Any]) -> str:
    """The difference (A minus B) with its interval, and the p of McNemar's test where there is one."""
    ends = (found["difference_low"], found["difference_high"])
    text = f"{found['difference']:+.3g}"
    if ends[0] is not None:
        text += f" [{ends[0]:+.3g}, {ends[1]:+.3g}]"
    return text if found["p"] is None else f"{text}, McNemar p {p_text(found['p'])}"


def p_text(p: float) -> str:
    """Three decimals; what is smaller says so."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def comparison_text(found: dict[str, Any]) -> str:
    """The whole comparison as plain text."""
    title = TITLES[found["score"]]
    lines = [f"{side.upper()}  {found[side]['name']}: {title} {found[side]['value']:.4g}" for side in "ab"]
    lines.append(f"A - B  {gap_text(found)}")
    counts = found["counts"]
    if counts:
        lines.append(
            f"right  both {counts['both']}, only A {counts['only_a']}, only B {counts['only_b']}, "
            f"neither {counts['neither']}"
        )
    left = found["left_out"]
    if sum(left.values()):
        lines.append(f"left out  {left['a']} clips A learned from, {left['b']} B, {left['both']} both")
    lines += [f"not compared  {valid_text(one['path'])}: {one['reason']}" for one in found["failed"][:SHOWN]]
    if found["note"]:
        lines.append(f"note  {found['note']}")
    lines.append(sentence(found))
    return "\n".join([*lines, "", _differ_text(found)] if found["differ"] else lines)


def _differ_text(found: dict[str, Any]) -> str:
    """The clips on which they differ, the first of them."""
    columns = COLUMNS.get(found["task"], COLUMNS["other"])
    rows = [
        [f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in columns]
        for row in found["differ"][:SHOWN]
    ]
    text = text_table(columns, rows)
    more = len(found["differ"]) - SHOWN
    return text + (f"\n... and {more} more" if more > 0 else "")


def write_comparison(found: dict[str, Any], folder: Path) -> None:
    """compare.json, compare.png, and differ.csv: the clips on which the models differ.

    Raises:
        DataError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(found, folder / "compare.json")
    columns = COLUMNS.get(found["task"], COLUMNS["other"])
    rows = [{name: row[name] for name in columns} | {"path": valid_text(row["path"])} for row in found["differ"]]
    csv_table(rows, columns, folder / "differ.csv")
    comparison_figure(found, folder / "compare.png")
