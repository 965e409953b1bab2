"""The commands about MLflow: sync, ui."""

from __future__ import annotations

import sys

from jsonargparse.typing import PositiveInt

from pipeline.cli.shared import command_parser
from pipeline.config import TrackingConfig
from pipeline.errors import UserError
from pipeline.options import add_json, guarded, print_result

SYNC_ABOUT = (
    "Send to MLflow what a server has missed: one that was away when a run was recorded, or a run that was recorded "
    "with --tracking.offline true. What was sent is not sent again. Credentials come from MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
)


def sync_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser("sync", SYNC_ABOUT)
    parser.add_argument(
        "FOLDER", type=str, nargs="?", default="runs", help="folder of a run, or one with runs below it"
    )
    parser.add_argument(
        "--uri", type=str | None, default=None, help="store to send to; unset: the one that each run was recorded for"
    )
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.stages.sync import as_json, sync, sync_text

    result = sync(options.FOLDER, options.uri)
    print_result(as_json(result), options.json, sync_text(result))
    if result.left:
        sys.exit(UserError.exit_code)


def ui_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser("ui", "Open the MLflow UI on this folder's store; Ctrl-C ends it.")
    parser.add_argument("--uri", type=str | None, default=None, help="store; unset: as in training")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on; this machine alone")
    parser.add_argument("--port", type=PositiveInt, default=5000, help="port; the next free one if taken")
    options = guarded(parser, given)
    from pipeline.stages.ui import serve

    serve(TrackingConfig(uri=options.uri), options.host, options.port)
