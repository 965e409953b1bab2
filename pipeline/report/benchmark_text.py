"""What `video-lstm benchmark` shows a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {
    "extraction": "extraction, once",
    "stored features": "an epoch on stored features",
    "epoch": "an epoch from files",
    "classification": "classification",
}
WIDTHS = (13, 9, 16)


def benchmark_text(result: Mapping[str, Any]) -> str:
    """A table per phase: each step alone, all of them at best, and what was really reached; then the advice.

    Args:
        result: of `stages.benchmark.as_dict`.
    """
    machine = f"{result['device']}, {result['cores']} cores, {result['workers']} decoding processes"
    lines = [f"{result['name']}: {result['clips']} clips of {result['source']}; {machine}"]
    for phase in result["phases"]:
        lines += ["", _row(TITLES[phase["name"]], "ms per clip", "share", "alone, clips/s")]
        for step, seconds in phase["seconds"].items():
            lines.append(_row(f"  {step}", _ms(seconds), f"{phase['shares'][step]:.1%}", _speed(1 / seconds)))
        lines.append(_row("  at best", _ms(1 / phase["bound"]), "", _speed(phase["bound"])))
        lines.append(_row("  really", _ms(1 / phase["rate"]), "", _speed(phase["rate"])))
        clips = f"{phase['clips']} clip views take {duration(phase['total'])}"
        waits = f"the model waits for clips {phase['waiting']:.0%} of the time"
        lines.append(f"  {phase['efficiency']:.2f} of the best; {waits}; {clips}")
    return "\n".join([*lines, "", result["advice"]["text"]])


def duration(seconds: float) -> str:
    """In the unit people would use: 0.4 s, 12 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _row(*cells: str) -> str:
    first, *others = cells
    return f"{first:<30}" + "".join(f"{cell:>{width}}" for cell, width in zip(others, WIDTHS, strict=False))


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 0.9995 else f"{1000 * seconds:.0f}"


def _speed(rate: float) -> str:
    return f"{rate:.3g}" if rate < 999.5 else f"{rate:,.0f}"
