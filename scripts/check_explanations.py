"""Do explanations find evidence that was put there? Clips are rendered, a model learns them, explanations are tested.

    .venv/bin/python scripts/check_explanations.py            the table of docs/explanation.md; some minutes
    .venv/bin/python scripts/check_explanations.py --quick    few, small clips of motion; under a minute
    .venv/bin/python scripts/check_explanations.py --json     one flat object of named numbers

Two data sets, see scripts/planted/render.py: textures that show for three of twelve frames, read by a CNN that learns
them; a motion that lasts five of sixteen frames, read as optical flow. Test clips have backgrounds of their own. A
training that is in the folder is used again; remove the folder to do everything anew. Exit code 1: a target is missed;
--quick names what is missed and judges nothing, as its model learned from few clips.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planted.measure import curves, explained, hits, randomised
from planted.render import FRAMES, SIZE, Truth, write_planted
from planted.variants import variants

import pipeline
from pipeline import UserError
from pipeline.config import (
    AugmentationConfig,
    Config,
    DataConfig,
    EncoderConfig,
    FlowConfig,
    RecurrentConfig,
    TrackingConfig,
    TrainingConfig,
    VideoConfig,
)
from pipeline.stages.progress import bar, say

TIME, SPACE, ALIKE = 0.9, 0.8, 0.5
"""Targets: hit rate in time, pointing game, and the rank correlation with a shuffled model that is too much."""


@dataclass(frozen=True)
class Task:
    """A kind of evidence, how many clips, and how the model learns."""

    kind: str
    clips: int
    epochs: int


TASKS = (Task("pattern", 320, 24), Task("motion", 320, 60))
QUICK = (Task("motion", 96, 40),)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/planted"), help="clips and models (runs/planted)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds render other clips")
    parser.add_argument("--quick", action="store_true", help="few, small clips of motion")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(arguments)
    try:
        results = {
            task.kind: check(task, options.out / ("quick" if options.quick else "") / task.kind, options.seed)
            for task in (QUICK if options.quick else TASKS)
        }
    except (UserError, OSError) as error:
        print(f"check_explanations: error: {error}", file=sys.stderr)
        return 2
    flat = {f"{kind}_{name}": value for kind, found in results.items() for name, value in found.items()}
    print(json.dumps(flat, indent=1) if options.json else table(results))
    missed = [name for kind, found in results.items() for name in misses(kind, found)]
    for name in missed:
        say(f"missed: {name}")
    return 1 if missed and not options.quick else 0


def check(task: Task, folder: Path, seed: int) -> dict[str, float]:
    """Render, train, explain and measure one task."""
    truths, labels = rendered(task, folder, seed)
    run = folder / "run"
    if not (run / "best").exists() or not (run / "report" / "metrics.json").exists():
        pipeline.train(configuration(task, folder), run)
    predictor = pipeline.load(run, device="cpu")
    with bar(f"explaining {task.kind}", len(truths)) as advance:
        clips = []
        for clip in explained(predictor, folder, truths, labels):
            clips.append(clip)
            advance(1)
    found = {"clips": float(len(truths)), "right": len(clips) / len(truths)}
    found |= hits(clips) | curves(predictor, clips, seed) | randomised(predictor, clips, seed)
    return found | variants(predictor, clips)


def rendered(task: Task, folder: Path, seed: int) -> tuple[list[Truth], dict[str, str]]:
    """The clips, made where they are not there yet: truth of the test clips, label of every one."""
    if not (folder / "truth.json").exists():
        write_planted(task.kind, folder, task.clips, seed)
    truths = [Truth(**row) for row in json.loads((folder / "truth.json").read_text(encoding="utf-8"))]
    with (folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        return truths, {row["path"]: row["label"] for row in csv.DictReader(file)}


def configuration(task: Task, folder: Path) -> Config:
    """What learns: a small CNN and an LSTM whose outputs are pooled, or flow on a grid and an LSTM's last state."""
    pattern = task.kind == "pattern"
    frames = FRAMES[task.kind]
    return Config(
        name=f"planted_{task.kind}",
        # the backgrounds are crops of few photographs: training and validation clips may look alike
        data=DataConfig(root=str(folder / "clips.csv"), allow_leak=True),
        video=VideoConfig(streams="rgb" if pattern else "flow", frames=frames, size=64),
        flow=FlowConfig(grid=8, size=SIZE["motion"]),
        augmentation=AugmentationConfig(crop=1.0, views=1),
        encoder=EncoderConfig(name="compact", weights="none", frozen=False),
        recurrent=RecurrentConfig(
            hidden=48, layers=1, projection=0 if pattern else 48, dropout=0.1, pooling="max" if pattern else "last"
        ),
        training=TrainingConfig(epochs=task.epochs, batch_size=16, learning_rate=2e-3, workers=0, device="cpu"),
        tracking=TrackingConfig(enabled=False),
    )


def misses(kind: str, found: dict[str, float]) -> list[str]:
    """The targets that are missed, in words."""
    wanted = {name: found[name] >= TIME for name in ("time_occlusion", "time_gradients")}
    wanted["space_evidence"] = found["space_evidence"] >= SPACE
    for name in ("occlusion", "gradients"):
        wanted[f"deletion_{name}"] = found[f"deletion_{name}"] < found["deletion_random"]
        wanted[f"insertion_{name}"] = found[f"insertion_{name}"] > found["insertion_random"]
    wanted |= {name: abs(found[name]) < ALIKE for name in found if name.startswith("shuffled_")}
    return [f"{kind} {name} {found[name]:.3f}" for name, met in wanted.items() if not met]


def table(results: dict[str, dict[str, float]]) -> str:
    """Rows of Markdown."""
    kinds = list(results)
    names = dict.fromkeys(name for found in results.values() for name in found)
    rows = []
    for name in names:
        cells = [f"{results[kind][name]:.3f}" if name in results[kind] else "" for kind in kinds]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([f"| | {' | '.join(kinds)} |", "|---|" + "---:|" * len(kinds), *rows])


if __name__ == "__main__":
    sys.exit(main())
