"""The command `sweep`: its options, which are those of a training one level deeper, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.sweep import SweepConfig
from pipeline.options import Parser, add_json, guarded, print_result

PROGRAM = "video-lstm sweep"
DESCRIPTION = (
    "Try trainings that differ in the options of a search space, end the hopeless ones early, and test the best one. "
    "CONFIG is a YAML file (see configs/sweep.yaml); docs/sweeps.md explains. A sweep that was interrupted or killed "
    "goes on with the same command."
)


def sweep_parser() -> Parser:
    """Every option; the configuration of the trainings is the section `base`."""
    usage = f"{PROGRAM} CONFIG [--option value ...] [--base.section.option value ...]"
    parser = Parser(prog=PROGRAM, description=DESCRIPTION, usage=usage)
    parser.add_argument("--config", action="config", help="YAML file; CONFIG without --config is the same.")
    parser.add_argument("--out", type=Path | None, default=None, help="the sweep's folder (default: runs/NAME)")
    parser.add_argument("--fresh", action="store_true", help="start over, removing what is in the sweep's folder")
    parser.add_argument(
        "--register", type=str | None, default=None, help="name in MLflow's registry for the best checkpoint"
    )
    parser.add_argument("--alias", type=str | None, default=None, help="of the registered version, such as champion")
    add_json(parser)
    parser.add_class_arguments(SweepConfig)
    return parser


def read_sweep(given: list[str]) -> tuple[Any, SweepConfig]:
    """The options and the configuration of `CONFIG [--option value ...]`.

    Raises:
        ConfigError: an unknown option, a wrong type or range, values that do not fit together.
    """
    parser = sweep_parser()
    options = guarded(parser, ["--config", *given] if given and not given[0].startswith("-") else given)
    values = parser.instantiate(options).as_dict()
    return options, SweepConfig(**{name: values[name] for name in SweepConfig.__dataclass_fields__})


def sweep_command(given: list[str]) -> None:
    """Parse, call, print."""
    options, config = read_sweep(given)
    from pipeline.stages.sweep.results import sweep_text
    from pipeline.stages.sweep.run import sweep

    result = sweep(config, options.out, options.fresh, options.register, options.alias)
    named = ("best", "trials", "folder", "metric", "registered")
    print_result({name: getattr(result, name) for name in named}, options.json, sweep_text(result))
