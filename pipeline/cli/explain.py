"""The command that shows what an answer rests on: explain."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeFloat

from pipeline.cli.shared import add_model, add_reading, command_parser
from pipeline.config import LimitsConfig, TrackingConfig
from pipeline.options import add_json, guarded, print_result

DESCRIPTION = (
    "Show what a model's answer to a file rests on: an annotated video, a picture, a page to play with, the numbers, "
    "in a folder per file. A bad file is a row with its reason."
)


def explain_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser("explain", DESCRIPTION)
    add_model(parser)
    parser.add_argument("FILE", type=str, nargs="+", help="files, folders, globs, list files (.txt), image folders")
    parser.add_argument("--out", type=Path, default=Path("explained"), help="folder to write to; made if needed")
    parser.add_argument(
        "--label", type=str | None, default=None, help="class to explain; unset: the model's own answer"
    )
    parser.add_argument(
        "--moment", type=NonNegativeFloat | None, default=None,
        help="seconds; for tasks with an answer for each moment: explain the one at this moment. Unset: the label that "
        "lasts longest, or the last number",
    )  # fmt: skip
    parser.add_argument(
        "--parts", type=Literal["video", "picture", "page", "numbers"],
        default=["video", "picture", "page", "numbers"], nargs="+", help="what to write of each file",
    )  # fmt: skip
    add_reading(parser, "accept")
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.catalog import Policy
    from pipeline.stages.explain import explain
    from pipeline.stages.models import load_model
    from pipeline.stages.reports import explain_text

    predictor = load_model(options.MODEL, options.device, TrackingConfig(uri=options.uri))
    policy = Policy(LimitsConfig(**vars(options.limits)), options.video.partial)
    result = explain(
        predictor, options.FILE, options.out, options.label, options.moment, options.parts, options.workers, policy
    )
    value = {"rows": result.rows, "ok": result.ok, "failed": result.failed, "out": result.out}
    print_result(value, options.json, explain_text(result))
