"""The commands that choose between models: compare, register."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.cli.shared import DEVICE_HELP, MODEL_HELP, WORKERS_HELP, command_parser
from pipeline.config import TrackingConfig
from pipeline.options import Parser, add_json, guarded, print_result

REFUSED = 1
"""Exit code of `register` where the gate keeps the alias where it was."""


def compare_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "compare",
        "Compare two models clip by clip, on clips that neither learned from: McNemar's exact test, a paired bootstrap "
        "over sources, and the clips on which they differ.",
    )
    parser.add_argument("MODEL_A", type=str, help=MODEL_HELP)
    parser.add_argument("MODEL_B", type=str, help="the other model")
    parser.add_argument("DATA", type=str, nargs="?", default=None, help="default: the data that MODEL_A was trained on")
    _add_running(parser)
    parser.add_argument("--out", type=Path | None, default=None, help="folder for numbers, table of clips and figure")
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.report.comparison import comparison_text, write_comparison
    from pipeline.stages.compare import compare
    from pipeline.stages.models import load_model

    tracking, names = TrackingConfig(uri=options.uri), (options.MODEL_A, options.MODEL_B)
    a, b = (load_model(name, options.device, tracking) for name in names)
    found = compare(a, b, options.DATA, names, options.workers, options.uri)
    if options.out is not None:
        write_comparison(found, options.out)
    print_result(found, options.json, comparison_text(found))


def register_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "register",
        "Make a model a version in MLflow's registry. With --alias it takes the alias over only where it is better "
        "than the version that has it, by a paired test on clips that neither learned from; if it is not, it is "
        f"registered without the alias and the command ends with {REFUSED}.",
    )
    parser.add_argument("MODEL", type=str, help=MODEL_HELP)
    parser.add_argument("--name", type=str, required=True, help="of the registered model")
    parser.add_argument("--alias", type=str | None, default=None, help="name for this version, such as champion")
    parser.add_argument("--data", type=str | None, default=None, help="clips to compare on; default: MODEL's own data")
    parser.add_argument("--force", action="store_true", help="give the alias whatever a comparison says")
    _add_running(parser)
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.stages.register import register_model, registered_text

    result = register_model(
        options.MODEL,
        options.name,
        options.alias,
        options.data,
        options.force,
        TrackingConfig(uri=options.uri),
        options.device,
        options.workers,
    )
    print_result(result, options.json, registered_text(result))
    if options.alias is not None and not result["has_alias"]:
        sys.exit(REFUSED)


def _add_running(parser: Parser) -> None:
    parser.add_argument("--device", type=str, default="auto", help=DEVICE_HELP)
    parser.add_argument("--workers", type=int, default=-1, help=WORKERS_HELP)
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store")
