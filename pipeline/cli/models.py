"""The commands that use a trained model on files: evaluate, classify."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import PositiveInt

from pipeline.addresses import shown
from pipeline.cli.shared import add_model, add_reading, command_parser
from pipeline.config import DataConfig, FetchConfig, LimitsConfig, RayConfig, TrackingConfig
from pipeline.errors import ConfigError
from pipeline.options import Parser, add_json, guarded, print_result

if TYPE_CHECKING:
    from pipeline.stages.predict import Predictor

SPLITTING = ("val", "test", "split_seed", "allow_leak", "folds", "fold")
"""Options of the data that say who learns from it."""


def evaluate_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "evaluate",
        "Score a model on clips it was not trained on, and write a report: scores with intervals and coverage, "
        "calibration, when to abstain, mistakes. Each reading of its test split is noted; docs/evaluation.md explains.",
    )
    add_model(parser)
    parser.add_argument("DATA", type=str, nargs="?", default=None, help="default: the data it was trained on")
    parser.add_class_arguments(DataConfig, "data", skip={"root", *SPLITTING})
    parser.add_argument(
        "--out", type=Path | None, default=None,
        help="folder of the report; unset: evaluation/SPLIT in the folder of the training, else in the current one",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=["test", "val", "train", "all"], default="test",
        help="clips of the model's own split; all includes those it learned from",
    )  # fmt: skip
    parser.add_argument(
        "--shuffle", action="store_true", help="show each clip's moments in random order: the score without time"
    )
    _add_wanted(parser)
    parser.add_argument(
        "--track", choices=["auto", "yes", "no"], default="auto",
        help="put the report into the model's MLflow run: where that is there, insist on it, or never",
    )  # fmt: skip
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.report.text import print_metrics
    from pipeline.stages.evaluate import Wanted
    from pipeline.stages.evaluation import evaluate_and_record
    from pipeline.stages.models import opened_model

    wanted = Wanted(options.precision, options.views, options.mirror, options.time, options.robustness)
    data = None if options.DATA is None else DataConfig(root=options.DATA, **vars(options.data))
    with opened_model(options.MODEL, options.device, TrackingConfig(uri=options.uri)) as predictor:
        metrics = evaluate_and_record(
            predictor, data, options.split, options.out, options.workers, options.shuffle, wanted, options.track,
            options.uri,
        )  # fmt: skip
    print_result(metrics, options.json, f"{print_metrics(metrics)}\n\nreport {metrics['report']}/index.html")


def _add_wanted(parser: Parser) -> None:
    """What an evaluation can look for beside the score."""
    parser.add_argument(
        "--precision", type=float, default=0.95,
        help="share of right answers wished for: the report has the confidence below which to abstain for it",
    )  # fmt: skip
    parser.add_argument(
        "--views", type=PositiveInt, default=1,
        help="look at each clip so often, at other moments; the mean of the answers is its one answer",
    )  # fmt: skip
    parser.add_argument(
        "--mirror", action="store_true",
        help="also look at mirror images, for a model that was trained with augmentation.flip",
    )  # fmt: skip
    parser.add_argument(
        "--time", action="store_true",
        help="is time used? Score the clips shuffled, reversed, frozen, cut and thinned, beside pooling alone",
    )  # fmt: skip
    parser.add_argument(
        "--robustness", action="store_true",
        help="score copies of up to 64 clips: encoded again, low bitrate, small, frames lost, dark, bright, noisy",
    )  # fmt: skip


def classify_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser("classify", "Label video files: one row per file, a bad file is a row with its reason.")
    add_model(parser)
    parser.add_argument(
        "SOURCE", type=str, nargs="+",
        help="files, folders, globs, list files (.txt, a path a line), image folders; elsewhere: "
        "https://HOST/FILE, s3://BUCKET/PREFIX/, s3://BUCKET/*.mp4, gs:// alike (docs/archives.md)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path | None, default=None,
        help="table: .csv, .jsonl, .parquet, or without a suffix a folder of Parquet parts, written as they fill; the "
        "same command goes on with an interrupted one. Unset: stdout",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=Path | None, default=None,
        help="page to look at, .html: pictures, filter, search, failed files with their reasons",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever an interrupted run has left")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32",
        help="of the encoder; bf16, for GPUs alone, moves features by several per cent",
    )  # fmt: skip
    parser.add_argument("--top_k", type=PositiveInt, default=5, help="classes named per file")
    parser.add_argument(
        "--engine", choices=["torch", "onnx", "ray"], default="torch",
        help="what runs the network; onnx: ONNX Runtime, on a MODEL or a folder that export wrote, see docs/export.md; "
        "ray: a Ray cluster, see docs/scale.md",
    )  # fmt: skip
    parser.add_argument(
        "--track", action="store_true",
        help="record it as an MLflow run: speed, failures, labels, and whether they drift from the training clips",
    )  # fmt: skip
    add_reading(parser, "accept")
    parser.add_class_arguments(FetchConfig, "fetch")
    parser.add_class_arguments(RayConfig, "ray")
    add_json(parser)
    options = guarded(parser, given)
    with _answering(options) as predictor:
        _classify(predictor, options)


@contextmanager
def _answering(options: Any) -> Iterator[Predictor]:
    """The model, on the engine that was asked for."""
    if options.engine != "ray" and RayConfig(**vars(options.ray)) != RayConfig():
        raise ConfigError(f"--ray options are for --engine ray; the engine is {options.engine}")
    tracking = TrackingConfig(uri=options.uri)
    if options.engine == "onnx":
        if options.precision != "fp32":
            raise ConfigError("the exported graphs compute in fp32; leave out --precision or --engine onnx")
        from pipeline.stages.export.predictor import load_onnx

        yield load_onnx(options.MODEL, options.device, tracking)
    elif options.engine == "ray":
        from pipeline.stages.scale.predictor import ray_predictor

        config = RayConfig(**vars(options.ray))
        with ray_predictor(options.MODEL, config, options.device, tracking, options.precision) as predictor:
            yield predictor
    else:
        from pipeline.stages.models import load_model

        yield load_model(options.MODEL, options.device, tracking, options.precision)


def _classify(predictor: Predictor, options: Any) -> None:
    """Call, print."""
    from pipeline.data.clip_file import Policy
    from pipeline.stages.classify import Classified, classify
    from pipeline.stages.reports import classify_text

    policy = Policy(LimitsConfig(**vars(options.limits)), options.video.partial)

    def work() -> Classified:
        return classify(
            predictor, options.SOURCE, options.out, options.top_k, options.workers, policy, options.fresh,
            keep=options.out is None or options.track, html=options.html,
            fetch=FetchConfig(**vars(options.fetch)),
        )  # fmt: skip

    if options.track:
        from pipeline.stages.classify_run import classify_tracked

        named = [shown(source) for source in options.SOURCE]
        result = classify_tracked(work, predictor, options.MODEL, named, options.uri)
    else:
        result = work()
    value = {"rows": result.rows, "ok": result.ok, "failed": result.failed, "out": result.out}
    value |= {"flat": result.flat} if result.flat else {}
    value |= {"html": result.html} if result.html else {}
    print_result(value | {"reasons": result.reasons}, options.json, classify_text(result))
