"""An export as a few lines for a person."""

from __future__ import annotations

from pipeline.stages.cache import format_size
from pipeline.stages.export.run import Exported


def export_text(result: Exported) -> str:
    """The files with their sizes and differences, and what was left out."""
    differences = result.parity.differences
    kinds = list(result.parity.lengths)
    lines = [f"{'file':<14}{'size':>9}" + "".join(f"{f'{kind} clips':>15}" for kind in kinds)]
    for name, size in result.files.items():
        cells = [f"{differences[name][kind]:.1e}" if kind in differences.get(name, {}) else "" for kind in kinds]
        lines.append(f"{name:<14}{format_size(size):>9}" + "".join(f"{cell:>15}" for cell in cells))
    lines += [f"no {name}: {why}" for name, why in result.left_out.items()]
    counts = " and ".join(
        f"{len(found)} {kind} clips of {min(found)} to {max(found)} moments"
        for kind, found in result.parity.lengths.items()
    )
    lines.append(f"largest difference from the checkpoint on {counts}: {result.parity.worst():.1e}")
    if "real" not in kinds:
        lines.append("no real clips were compared: the training's are not there; --clips names some")
    lines.append(f"written to {result.folder}; export.json says what goes in and what comes out")
    return "\n".join(lines)
