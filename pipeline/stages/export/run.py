"""Export: a checkpoint as ONNX graphs and a `torch.export` program, compared with it before anyone can use them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.data import layouts
from pipeline.data.clip_file import ClipFile
from pipeline.data.stream import stream_clips
from pipeline.disk import refusal, refuse_foreign, sync
from pipeline.errors import DataError, ExportError, UserError
from pipeline.model.checkpoint import config_of
from pipeline.model.plain import trace
from pipeline.model.plain.trace import OPSET, Graph
from pipeline.stages.export import describe
from pipeline.stages.export.engine import CARD, FORMAT, first_line, require
from pipeline.stages.export.parity import SHAPES, TOLERANCE, Arrays, Parity, measure
from pipeline.stages.find import find_files
from pipeline.stages.predict import Predictor
from pipeline.stages.progress import bar

CLIPS = 4
"""Real clips that are compared."""
ONE_WAY = "the model reads clips in both directions, so it has no step; clip.onnx takes whole clips"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        files: name -> bytes.
        left_out: name -> why it is not there.
        parity: how far each file is from the checkpoint.
    """

    folder: str
    files: dict[str, int]
    left_out: dict[str, str]
    parity: Parity


def export(
    predictor: Predictor,
    out: str | Path,
    clips: str | Path | Sequence[str | Path] | None = None,
    tolerance: float = TOLERANCE,
    engine_alone: bool = False,
) -> Exported:
    """Write a model as graphs, each compared with the model on clips of several lengths.

    Args:
        predictor: the model, on the CPU.
        out: folder; one that an earlier export wrote is replaced.
        clips: real clips to compare on; None: some of the data that the model was trained on, where they are there.
        tolerance: see `parity.TOLERANCE`.
        engine_alone: only what `OnnxEngine` needs to encode, answer and step.

    Raises:
        ConfigError: the extra [onnx] is not installed.
        DataError: none of `clips` can be read.
        ExportError: PyTorch cannot write the model, a file is too far from the checkpoint, or the folder holds
            something else.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module)
    out = Path(out)
    refuse_foreign(out, (CARD, *describe.WHAT), "an export", ExportError)
    real = _real_clips(predictor, clips)
    model, config = predictor.model, config_of(predictor.card)
    jobs, left_out = _jobs(predictor, engine_alone)
    written: dict[str, Any] = {}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _beside(out) as new, bar("exporting", len(jobs) + len(SHAPES) + (len(real) + 1) // 2) as advance:
            for name, make in jobs.items():
                written |= _write(new, name, make)
                advance(1)
            card = {
                "format": FORMAT, "checkpoint": predictor.digest, "opset": OPSET, "precision": "float32",
                "answer": describe.answer_entry(model, config, predictor.classes, predictor.temperature),
                "files": written,
                "state": describe.state_entries(model), "left_out": left_out,
                "preprocessing": describe.preprocessing(model, config), "versions": describe.versions(),
                "card": dataclasses.asdict(predictor.card),
            }  # fmt: skip
            _write_card(new, card)
            parity = measure(model, new, real, config.video.size, tolerance, advance)
            parity.check()
            _write_card(new, card | {"parity": {"tolerance": tolerance, **dataclasses.asdict(parity)}})
    except OSError as error:
        raise ExportError(f"{out}: cannot write the export {refusal(error)}") from error
    sizes = {name: entry["bytes"] for name, entry in written.items()}
    return Exported(str(out), sizes, left_out, parity)


def _jobs(predictor: Predictor, engine_alone: bool) -> tuple[dict[str, Callable[[], Graph]], dict[str, str]]:
    """Which files are made, and from what; and which are not, and why."""
    model, size = predictor.model, config_of(predictor.card).video.size
    outputs = 1 if model.numeric else len(predictor.classes)
    jobs: dict[str, Callable[[], Graph]] = {}
    left_out: dict[str, str] = {}
    if model.encoders:
        jobs["encoder.onnx"] = lambda: trace.trace_encoders(model, size)
    else:
        left_out["encoder.onnx"] = "the model reads grids of cells, which need no encoder"
    jobs["head.onnx"] = lambda: trace.trace_head(model, outputs)
    if model.streamable:
        jobs["step.onnx"] = lambda: trace.trace_step(model, outputs)
    else:
        left_out["step.onnx"] = ONE_WAY
    if not engine_alone:
        jobs["clip"] = lambda: trace.trace_clip(model, size, outputs)
    return jobs, left_out


def _write(folder: Path, name: str, make: Callable[[], Graph]) -> dict[str, Any]:
    """One graph, as ONNX; a whole clip as a program too. What export.json says of each file."""
    graph = _made(name, make)
    files = (
        {f"{name}.onnx": trace.write_onnx, f"{name}.pt2": trace.write_program}
        if name == "clip"
        else {name: trace.write_onnx}
    )
    found = {}
    for file, write in files.items():
        path = folder / file
        _made(file, lambda write=write, path=path: write(graph, path))  # type: ignore[misc]
        path.chmod(0o644)
        sync(path)
        entry = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        found[file] = entry | describe.graph_entry(file, graph)
    return found


def _made(name: str, make: Callable[[], Any]) -> Any:
    """What an exporter makes; what it cannot is a line that names the file, not pages of its reasons."""
    try:
        return make()
    except (UserError, OSError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        raise ExportError(
            f"{name}: PyTorch {torch.__version__} cannot write this model ({first_line(error)}); --debug shows all"
        ) from error


def _real_clips(predictor: Predictor, given: str | Path | Sequence[str | Path] | None) -> list[Arrays]:
    """Inputs of a few clips, spread over those that there are."""
    if given is None:
        paths = _training_clips(predictor)
    else:
        paths = find_files([given] if isinstance(given, str | Path) else given)
    if not paths:
        return []
    chosen = paths[:: max(1, len(paths) // CLIPS)]
    found: list[Arrays] = []
    for loaded in stream_clips([ClipFile(path) for path in chosen[: 2 * CLIPS]], predictor.plan, 1):
        if loaded.clip is not None and len(found) < CLIPS:
            found.append(dict(loaded.clip.inputs))
    if given is not None and not found:
        raise DataError(f"none of the {len(paths)} clips to compare on could be read; video-lstm doctor says why")
    return found


def _training_clips(predictor: Predictor) -> list[str]:
    """Files of the data set that the checkpoint names, where it is there."""
    config = config_of(predictor.card)
    try:
        entries = layouts.discover(config.data, config.task).entries if config.data.root else []
    except (UserError, OSError):
        return []
    return sorted({entry.path for entry in entries})


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    path = folder / CARD
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    sync(path)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder that takes the place of `out` when the block is done, and is gone where it fails."""
    out = out.resolve()
    new = Path(tempfile.mkdtemp(prefix=f".{out.name}.new-", dir=out.parent))
    new.chmod(0o755)
    try:
        yield new
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
        if out.exists():
            out.rename(aside / "export")
        new.rename(out)
        sync(out.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
