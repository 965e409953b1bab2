"""What `video-lstm describe` shows a person."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

UNITS = ("", "k", "M", "G", "T")
HEADER = ("params", "mult-adds", "outputs", "weights")


def description_text(described: Mapping[str, Any], width: int = 100) -> str:
    """A table of the steps, and the meaning of the recurrent weights, of at most `width` columns where names allow.

    Args:
        described: `stages.describe.Described` as a dictionary.
        width: columns of the terminal.
    """
    from rich.console import Console

    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(_table(described))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    parts = [
        _title(described, width),
        [""],
        lines,
        [""],
        _matrices(described["blocks"], width),
        _notes(described, width),
    ]
    return "\n".join(line for part in parts for line in part)


def short(number: int | None, unit: str = "") -> str:
    """Three digits and a prefix: 1690 is 1.69 k; bytes by powers of 1000 too; nothing for None."""
    if number is None:
        return ""
    value, power = float(number), 0
    while value >= 999.5 and power < len(UNITS) - 1:
        value, power = value / 1000, power + 1
    digits = f"{value:.3g}" if power else f"{number}"
    return " ".join(part for part in (digits, UNITS[power] + unit) if part)


def _title(described: Mapping[str, Any], width: int) -> list[str]:
    answer = "1 number" if described["task"].endswith("regression") else f"{described['outputs']} classes"
    origin = f" ({described['outputs_from']})" if described["outputs_from"] else ""
    moments = f"for one clip of {described['moments']} moments"
    return _wrapped(f"{described['name']}: {described['task']}, {answer}{origin}; {moments}", width)


def _table(described: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("step", overflow="fold")
    table.add_column("shape", overflow="fold")
    for name in HEADER:
        table.add_column(name, justify="right", no_wrap=True)
    blocks: Sequence[Mapping[str, Any]] = described["blocks"]
    for block in blocks:
        if len(blocks) > 1:
            table.add_row(Text(block["name"]), "", "", "", "", "")
        indent = "  " if len(blocks) > 1 else ""
        for step in block["steps"]:
            table.add_row(Text(indent + step["name"]), "x".join(str(size) for size in step["shape"]), *_numbers(step))
        table.add_section()
    table.add_row("all", "", *_numbers(described))
    return table


def _numbers(step: Mapping[str, Any]) -> list[str]:
    """The four numbers; nothing where there is nothing."""
    values = (short(step["parameters"]), short(step["multiply_adds"]))
    sizes = (short(step["activations"], "B"), short(step["weights"], "B"))
    return [text if not text.startswith("0") else "" for text in (*values, *sizes)]


def _matrices(blocks: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Each weight of the recurrent layers with what its rows and columns stand for; a backward layer's are alike."""
    lines: list[str] = []
    for block in blocks:
        shown = [matrix for matrix in block["matrices"] if "_backward." not in matrix["name"]]
        if not shown:
            continue
        stream = f" of {block['name']}" if len(blocks) > 1 else ""
        both = "; those that read backwards have the same" if len(shown) < len(block["matrices"]) else ""
        lines += [f"Weights of the recurrent layers{stream}{both}:", ""]
        for matrix in shown:
            lines.append(f"  {matrix['name']} ({', '.join(str(size) for size in matrix['shape'])})")
            for axis in ("rows", "columns"):
                if matrix[axis]:
                    lines += _wrapped(matrix[axis], width, f"    {axis:<9}")
        lines.append("")
    return lines


def _notes(described: Mapping[str, Any], width: int) -> list[str]:
    notes = [
        f"{described['trained']:,} of {described['parameters']:,} parameters are trained.",
        "mult-adds: products with weights, for one clip. Convolutions and linear layers as PyTorch counts them, "
        "recurrent layers by formula: each weight once per step.",
        "outputs: bytes of all that a step's layers put out for one clip. Images are uint8 until they are normalised, "
        "all else is float32.",
    ]
    return [line for note in notes for line in _wrapped(note, width)]


def _wrapped(text: str, width: int, label: str = "") -> list[str]:
    """Lines of at most `width` columns, the first with the label, the others below its end."""
    return textwrap.wrap(text, width, initial_indent=label, subsequent_indent=" " * len(label))
