"""The command export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from jsonargparse.typing import PositiveFloat

from pipeline.cli.shared import MODEL_HELP, command_parser
from pipeline.config import TrackingConfig
from pipeline.options import add_json, guarded, print_result


def export_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "export",
        "Write a model as ONNX graphs (encoder, head, step with a state, whole clip) and a torch.export program, each "
        "compared with the checkpoint. Needs the extra [onnx]. See docs/export.md.",
    )
    parser.add_argument("MODEL", type=str, help=MODEL_HELP)
    parser.add_argument("--out", type=Path, required=True, help="folder; an export that is there is replaced")
    parser.add_argument(
        "--clips", type=str, nargs="+", default=None,
        help="files or folders to compare on; unset: some of the clips that it was trained on, where they are there",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=PositiveFloat, default=1e-4,
        help="largest difference of logits that is accepted; of numbers, in standard deviations of the targets",
    )  # fmt: skip
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store of runs:/ and models:/ addresses")
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.stages.export.run import export
    from pipeline.stages.export.text import export_text
    from pipeline.stages.models import load_model

    predictor = load_model(options.MODEL, "cpu", TrackingConfig(uri=options.uri))
    result = export(predictor, options.out, options.clips, options.tolerance)
    print_result(asdict(result), options.json, export_text(result))
