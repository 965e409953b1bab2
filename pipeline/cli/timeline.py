"""The command about long recordings: timeline."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.shared import DEVICE_HELP, MODEL_HELP, command_parser
from pipeline.config import EventsConfig, TimelineConfig, TrackingConfig
from pipeline.config.types import ClosedUnitInterval, NonNegativeFloat
from pipeline.errors import UserError
from pipeline.options import Parser, add_json, guarded, print_result


def timeline_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "timeline",
        "Label recordings of minutes or hours over time, in constant memory: events as JSON lines, CSV and subtitles "
        "(SRT, WebVTT), probabilities as Parquet, a picture; docs/recordings.md explains.",
    )
    parser.add_argument("MODEL", type=str, help=MODEL_HELP)
    parser.add_argument(
        "FILE", type=str, nargs="+", help="recordings; also folders, globs, list files (.txt, a path a line)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, made where it is not there")
    parser.add_class_arguments(TimelineConfig, skip={"ignore"})
    parser.add_argument("--ignore", type=str, nargs="+", default=[], help="labels that make no events")
    _add_events(parser)
    parser.add_argument("--device", type=str, default="auto", help=DEVICE_HELP)
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store of runs:/ and models:/ addresses")
    add_json(parser)
    options = guarded(parser, given)
    config = TimelineConfig(**{name: options[name] for name in TimelineConfig.__dataclass_fields__})
    events = EventsConfig(options.on, options.off, options.shortest, options.merge)
    from pipeline.stages.models import load_model
    from pipeline.stages.reports import timeline_text
    from pipeline.stages.timeline.run import timeline

    predictor = load_model(options.MODEL, options.device, TrackingConfig(uri=options.uri))
    result = timeline(predictor, options.FILE, options.out, config, events)
    print_result(result, options.json, timeline_text(result))
    if not result["ok"]:
        raise UserError("no file could be read; the rows say why")


def _add_events(parser: Parser) -> None:
    """`EventsConfig`, by shorter names."""
    usual = EventsConfig()
    for name, kind, value, text in (
        ("on", ClosedUnitInterval, usual.on, "an event begins where a class reaches this probability"),
        ("off", ClosedUnitInterval, usual.off, "it ends where the class falls below this one"),
        ("shortest", NonNegativeFloat, usual.min_length, "seconds; shorter events are left out"),
        ("merge", NonNegativeFloat, usual.merge, "events of one class at most so many seconds apart are one"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=value, help=text)
