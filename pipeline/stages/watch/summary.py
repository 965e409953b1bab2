"""What a watch says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.stages.watch.latency import Latency
from pipeline.stages.watch.reader import Reader
from pipeline.stages.watch.tracker import Tracker


def source_row(reader: Reader, tracker: Tracker, status: str) -> dict[str, Any]:
    """The counts of one source; `status` is live, lost, waiting, ended or failed."""
    row = {"source": reader.name, "status": status, "frames": reader.frames, "answers": tracker.answers}
    return row | {"dropped": reader.mailbox.dropped, "gaps": reader.gaps, "events": tracker.events}


def milliseconds(latency: Latency) -> dict[str, float | None]:
    """latency_p50_ms and latency_p99_ms; None before the first answer."""
    found = {"latency_p50_ms": latency.quantile(0.5), "latency_p99_ms": latency.quantile(0.99)}
    return {name: None if value is None else round(value * 1000, 2) for name, value in found.items()}


def summary_text(summary: Mapping[str, Any]) -> str:
    """For a person."""
    lines = []
    for row in summary["sources"]:
        text = f"{row['source']}: {row['frames']} frames, {row['answers']} answers, {row['events']} events"
        text += f", {row['dropped']} dropped" if row["dropped"] else ""
        lines.append(text + (f", {row['gaps']} gaps" if row["gaps"] else ""))
    if summary["latency_p50_ms"] is not None:
        lines.append(
            f"from frame to answer: {summary['latency_p50_ms']:.1f} ms in the middle (p50), "
            f"{summary['latency_p99_ms']:.1f} ms at worst but one in a hundred (p99)"
        )
    if "webhook" in summary:
        lines.append("webhook: " + ", ".join(f"{count} {name}" for name, count in summary["webhook"].items()))
    return "\n".join(lines)
