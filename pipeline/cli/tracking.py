"""The commands about MLflow: ui."""

from __future__ import annotations

from jsonargparse.typing import PositiveInt

from pipeline.cli.shared import command_parser
from pipeline.config import TrackingConfig
from pipeline.options import guarded


def ui_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser("ui", "Open the MLflow UI on this folder's store; Ctrl-C ends it.")
    parser.add_argument("--uri", type=str | None, default=None, help="store; unset: as in training")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on; this machine alone")
    parser.add_argument("--port", type=PositiveInt, default=5000, help="port; the next free one if taken")
    options = guarded(parser, given)
    from pipeline.stages.ui import serve

    serve(TrackingConfig(uri=options.uri), options.host, options.port)
