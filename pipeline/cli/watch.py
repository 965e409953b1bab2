"""The commands about streams: watch, tune_watch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.shared import DEVICE_HELP, MODEL_HELP, WORKERS_HELP, command_parser
from pipeline.config import DataConfig, EventsConfig, TrackingConfig, WatchConfig
from pipeline.config.types import PositiveFloat
from pipeline.options import Parser, add_json, guarded, print_result

if TYPE_CHECKING:
    from pipeline.stages.predict import Predictor

PAGE = "127.0.0.1:8000"
RATE_HELP = "moments per second; unset: as the model samples, or as its training clips were sampled on the whole"


def watch_command(given: list[str]) -> None:
    """Parse, call; lines are printed as they come."""
    parser = command_parser(
        "watch",
        "Answer to streams moment by moment: events as lines of JSON on stdout, until the sources end or Ctrl-C.",
    )
    _add_model(parser)
    parser.add_argument(
        "SOURCE", type=str, nargs="+", help="files, camera numbers (0), addresses (rtsp://, http://), - for stdin"
    )
    parser.add_class_arguments(WatchConfig, skip={"realtime", "ignore"})
    parser.add_argument("--realtime", action="store_true", help="read files no faster than they play")
    parser.add_argument("--ignore", type=str, nargs="+", default=[], help="labels that make no events")
    parser.add_argument(
        "--serve", type=str | None, nargs="?", const=PAGE, default=None, metavar="HOST:PORT",
        help=f"a web page with picture, answers, gates and events; alone: on {PAGE}; elsewhere a token is needed",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=["torch", "onnx"], default="torch",
        help="what runs the network; onnx: ONNX Runtime, on a MODEL or a folder that export wrote; it shows no gates",
    )  # fmt: skip
    parser.add_class_arguments(EventsConfig, "events")
    options = guarded(parser, given)
    from pipeline.stages.watch.run import watch

    config = WatchConfig(**{name: options[name] for name in WatchConfig.__dataclass_fields__})
    tracking = TrackingConfig(uri=options.uri)
    if options.engine == "onnx":
        from pipeline.stages.export.predictor import load_onnx

        predictor: Predictor = load_onnx(options.MODEL, options.device, tracking)
    else:
        from pipeline.stages.models import load_model

        predictor = load_model(options.MODEL, options.device, tracking)
    watch(predictor, options.SOURCE, config, EventsConfig(**vars(options.events)), options.serve)


def tune_watch_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "tune_watch",
        "Choose on validation clips when a model begins anew in a stream, and store it in the checkpoint: the clips "
        "are joined to streams, and the way with the most right answers wins.",
    )
    _add_model(parser)
    parser.add_argument("DATA", type=str, nargs="?", default=None, help="default: the data it was trained on")
    parser.add_argument("--workers", type=int, default=-1, help=WORKERS_HELP)
    parser.add_argument("--rate", type=PositiveFloat | None, default=None, help=RATE_HELP)
    parser.add_argument("--out", type=Path | None, default=None, help="folder for delay.png and tune_watch.json")
    parser.add_class_arguments(EventsConfig, "events")
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.stages.models import own_folder
    from pipeline.stages.watch.tune import tune_text, tune_watch

    data = None if options.DATA is None else DataConfig(root=options.DATA)
    events = EventsConfig(**vars(options.events))
    result = tune_watch(
        own_folder(options.MODEL), data, options.rate, events, options.out, options.device, options.workers
    )
    print_result(result, options.json, tune_text(result))


def _add_model(parser: Parser) -> None:
    parser.add_argument("MODEL", type=str, help=MODEL_HELP)
    parser.add_argument("--device", type=str, default="auto", help=DEVICE_HELP)
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store of runs:/ and models:/ addresses")
