"""What the options of several commands have in common."""

from __future__ import annotations

from typing import Any

from pipeline.config import Config, LimitsConfig
from pipeline.options import Parser, guarded, to_config

MODEL_HELP = "checkpoint folder, folder of a training, runs:/ID[/FOLDER], models:/NAME@ALIAS or models:/NAME/VERSION"
WORKERS_HELP = "decoding processes; -1: one per core, at most 8; 0: in the main process"
DEVICE_HELP = "auto, cpu, cuda, cuda:1, mps"


def command_parser(command: str, description: str) -> Parser:
    """Of `video-lstm COMMAND`."""
    return Parser(prog=f"video-lstm {command}", description=description)


def add_model(parser: Parser) -> None:
    """MODEL, and how it is read and run."""
    parser.add_argument("MODEL", type=str, help=MODEL_HELP)
    parser.add_argument("--device", type=str, default="auto", help=DEVICE_HELP)
    parser.add_argument("--workers", type=int, default=-1, help=WORKERS_HELP)
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store of runs:/ and models:/ addresses")


def add_reading(parser: Parser, partial: str) -> None:
    """What a file may cost, and whether a damaged one is used."""
    parser.add_argument(
        "--video.partial", choices=["accept", "reject"], default=partial,
        help="a file that is cut off or damaged: use the frames that decode, or leave the file out",
    )  # fmt: skip
    parser.add_class_arguments(LimitsConfig, "limits")


def configured(parser: Parser, given: list[str]) -> tuple[Any, Config]:
    """The options and the configuration of `COMMAND CONFIG [--section.option value ...]`."""
    if given and not given[0].startswith("-"):
        given = ["--config", *given]
    options = guarded(parser, given)
    return options, to_config(parser, options)


def named_model(given: list[str]) -> tuple[str, list[str]]:
    """The MODEL that stands in the place of a CONFIG, if one does, and the other arguments."""
    if not given or given[0].startswith("-") or given[0].endswith((".yaml", ".yml")):
        return "", given
    return given[0], given[1:]
