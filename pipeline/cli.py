"""The command line: one command per stage; parse, call, print.

Results go to stdout, progress and messages to stderr. Nothing heavy is imported before the options are known to be
right.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline import __version__
from pipeline.cli_sweep import sweep_command
from pipeline.config import Config, DataConfig, LimitsConfig, Task, TrackingConfig, TrainingConfig
from pipeline.errors import ConfigError, Preempted, UserError
from pipeline.options import Parser, config_parser, guarded, stdout, to_config
from pipeline.options import add_json as _add_json
from pipeline.options import print_result as _print
from pipeline.signals import stops

Command = Callable[[list[str]], None]

INTERRUPTED = 130
MODEL_HELP = "checkpoint folder, folder of a training, runs:/ID[/FOLDER], models:/NAME@ALIAS or models:/NAME/VERSION"
WORKERS_HELP = "decoding processes; -1: one per core, at most 8; 0: in the main process"
DEMO_HELP = (
    "label: eight motions; frame_label: phases of motion; regression: the number of turns; frame_regression: the "
    "horizontal position"
)
SPLITTING = ("val", "test", "split_seed", "allow_leak", "folds", "fold")
"""Options of the data that say who learns from it."""
DEVICE_HELP = "auto, cpu, cuda, cuda:1, mps"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `video-lstm`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with stops():
            _dispatch(given)
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # another Ctrl-C ends the process at once
        goes_on = {"train": "training", "sweep": "sweep"}.get("" if "--find_rate" in given else "".join(given[:1]))
        preempted = isinstance(stop, Preempted)
        what = "ended by SIGTERM" if preempted else "interrupted"
        _complain(what + (f"; the same command continues the {goes_on}" if goes_on else ""))
        sys.exit(Preempted.exit_code if preempted else INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (UserError, OSError) as error:
        if debug:
            raise
        _complain(f"error: {error}")
        sys.exit(UserError.exit_code)


def _dispatch(given: list[str]) -> None:
    if not given or given[0] in ("-h", "--help"):
        stdout(_usage())
        return
    if given[0] == "--version":
        stdout(f"video-lstm {__version__}")
        return
    if given[0] not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(given[0], COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "video-lstm --help lists the commands"
        raise UserError(f"there is no command '{given[0]}'; {hint}")
    COMMANDS[given[0]][0](given[1:])


def _usage() -> str:
    lines = ["usage: video-lstm COMMAND ...", "", "From a folder of labelled video clips to labels.", ""]
    lines += [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "video-lstm COMMAND --help explains a command and lists its options.",
              "--debug before or after any command shows the traceback of an error."]  # fmt: skip
    return "\n".join(lines)


def _complain(message: str) -> None:
    print(f"video-lstm: {' '.join(message.split())}", file=sys.stderr)


def _parser(command: str, description: str) -> Parser:
    return Parser(prog=f"video-lstm {command}", description=description)


def _add_model(parser: Parser) -> None:
    parser.add_argument("MODEL", type=str, help=MODEL_HELP)
    parser.add_argument("--device", type=str, default="auto", help=DEVICE_HELP)
    parser.add_argument("--workers", type=int, default=-1, help=WORKERS_HELP)
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store of runs:/ and models:/ addresses")


def _add_reading(parser: Parser, partial: str) -> None:
    """What a file may cost, and whether a damaged one is used."""
    parser.add_argument(
        "--video.partial", choices=["accept", "reject"], default=partial,
        help="a file that is cut off or damaged: use the frames that decode, or leave the file out",
    )  # fmt: skip
    parser.add_class_arguments(LimitsConfig, "limits")


def _configured(parser: Parser, given: list[str]) -> tuple[Any, Config]:
    """The options and the configuration of `COMMAND CONFIG [--section.option value ...]`."""
    if given and not given[0].startswith("-"):
        given = ["--config", *given]
    options = guarded(parser, given)
    return options, to_config(parser, options)


def _named_model(given: list[str]) -> tuple[str, list[str]]:
    """The MODEL that stands in the place of a CONFIG, if one does, and the other arguments."""
    if not given or given[0].startswith("-") or given[0].endswith((".yaml", ".yml")):
        return "", given
    return given[0], given[1:]


def _demo(given: list[str]) -> None:
    parser = _parser("demo", "Write the demo clips of a task: real video files of one moving object.")
    parser.add_argument("DIR", type=str, help="folder to write to; made if needed")
    parser.add_argument(
        "--groups", type=PositiveInt, default=120, help="groups of clips with one background and object"
    )
    parser.add_argument("--task", type=Task, default="label", help=DEMO_HELP)
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="other seeds give other clips")
    _add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.demo import clips_per_group, write_demo
    from pipeline.stages.progress import bar

    with bar("rendering", options.groups * clips_per_group(options.task)) as advance:
        count = write_demo(options.DIR, options.groups, options.seed, advance, options.task)
    _print({"clips": count, "dir": options.DIR}, options.json, f"{count} clips in {options.DIR}")


def _ingest(given: list[str]) -> None:
    parser = _parser("ingest", "Decode every file once, record what it holds, and split the clips without leaks.")
    parser.add_argument("DATA", type=str, help="folder of clips or a list of them; docs/data.md shows the layouts")
    parser.add_argument("--out", type=Path | None, default=None, help="write the catalog: .parquet or .csv")
    parser.add_argument(
        "--task", type=Task, default="label", help="what is to be learned; docs/tasks.md shows the lists"
    )
    parser.add_class_arguments(DataConfig, "data", skip={"root"})
    _add_reading(parser, "reject")
    _add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.catalog import Policy
    from pipeline.stages.ingest import ingest
    from pipeline.stages.reports import ingest_text

    policy = Policy(LimitsConfig(**vars(options.limits)), options.video.partial)
    result = ingest(DataConfig(root=options.DATA, **vars(options.data)), options.out, policy=policy, task=options.task)
    value = result.summary | {"near_duplicates": [asdict(pair) for pair in result.leaks]}
    _print(value, options.json, ingest_text(result, options.out))


def _extract(given: list[str]) -> None:
    parser = config_parser(
        "video-lstm extract",
        "Compute and keep the features of a frozen encoder for all clips of a configuration, as `train` would. What is "
        "kept already is not computed again.",
    )
    parser.add_argument("--out", type=Path | None, default=None, help="also write a file per clip and index.parquet")
    _add_json(parser)
    options, config = _configured(parser, given)
    from pipeline.stages.extract_all import extract_all
    from pipeline.stages.reports import extract_text

    result = extract_all(config, options.out)
    _print(asdict(result), options.json, extract_text(result))


def _cache(given: list[str]) -> None:
    parser = _parser("cache", "Show what is kept on disk to save work: features, and findings about files.")
    parser.add_argument("--clear", action="store_true", help="remove all features; they are made again when needed")
    parser.add_argument("--all", action="store_true", help="with --clear: also the findings about examined files")
    parser.add_argument(
        "--limit", type=str | None, default=None, help="size such as 5GB: remove what was not used for longest above it"
    )
    _add_json(parser)
    options = guarded(parser, given)
    from pipeline.stages.cache import cache_text, manage_cache

    result = manage_cache(options.clear, options.all, options.limit)
    _print(asdict(result), options.json, cache_text(result))


def _train(given: list[str]) -> None:
    parser = config_parser(
        "video-lstm train",
        "Train a classifier, test it, and record it in MLflow. CONFIG is a YAML file (see configs/); "
        "every option below can also stand in it. An interrupted training goes on with the same command. "
        "With data.folds it trains a model per fold and pools their tests.",
    )
    parser.add_argument("--out", type=Path | None, default=None, help="the run's folder (default: runs/NAME)")
    parser.add_argument("--fresh", action="store_true", help="start over, replacing what is in the run's folder")
    parser.add_argument("--resume", action="store_true", help="insist on continuing an unfinished training")
    parser.add_argument("--find_rate", action="store_true", help="train nothing: test learning rates and suggest one")
    _add_json(parser)
    options, config = _configured(parser, given)
    if options.find_rate:
        from pipeline.stages.find_rate import find_rate
        from pipeline.stages.reports import rate_text

        found = find_rate(config, options.out)
        _print(asdict(found), options.json, rate_text(found))
        return
    if config.data.folds and not config.data.fold:
        _cross_validate(config, options)
        return
    from pipeline.report.text import print_metrics
    from pipeline.stages.train import train

    result = train(config, options.out, options.fresh, options.resume)
    value = {"checkpoint": result.checkpoint, "run_id": result.run_id, "folder": result.folder, "test": result.test}
    test = print_metrics(result.test) if result.test else "not tested: data.test is 0"
    _print(value, options.json, f"{test}\ncheckpoint  {result.checkpoint}\nreport      {result.folder}/report")


def _cross_validate(config: Config, options: Any) -> None:
    """`train` where there are folds."""
    from pipeline.report.folds import folds_text
    from pipeline.report.text import print_metrics
    from pipeline.stages.cross_validate import as_json, cross_validate

    result = cross_validate(config, options.out, options.fresh, options.resume)
    table = folds_text([fold.test for fold in result.folds], result.pooled)
    text = f"{table}\n\n{print_metrics(result.pooled)}\nmodels  {result.folder}/fold-*\nreport  {result.folder}/report"
    _print(as_json(result), options.json, text)


def _describe(given: list[str]) -> None:
    parser = config_parser(
        "video-lstm describe",
        "Show every step from file to answer with its shape, parameters, multiply-adds and memory, and what the rows "
        "and columns of the recurrent weights mean. CONFIG is a YAML file; a MODEL in its place is described as it is: "
        + MODEL_HELP,
    )
    parser.add_argument(
        "--classes", type=PositiveInt | None, default=None,
        help="number of classes of a CONFIG; unset: those of data.root, 2 where that is not there",
    )  # fmt: skip
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store of runs:/ and models:/ addresses")
    _add_json(parser)
    trained, given = _named_model(given)
    options, config = _configured(parser, given)
    if trained and (config != Config() or options.classes is not None):
        raise ConfigError(f"{trained} is a trained model, which has its options; give none but --uri and --json")
    import shutil

    from pipeline.report.description import description_text
    from pipeline.stages.describe import describe_config, describe_model

    result = describe_model(trained, options.uri) if trained else describe_config(config, options.classes)
    value = asdict(result)
    _print(value, options.json, description_text(value, shutil.get_terminal_size((100, 24)).columns))


def _evaluate(given: list[str]) -> None:
    parser = _parser("evaluate", "Score a model on clips it was not trained on, with intervals and coverage.")
    _add_model(parser)
    parser.add_argument("DATA", type=str, nargs="?", default=None, help="default: the data it was trained on")
    parser.add_class_arguments(DataConfig, "data", skip={"root", *SPLITTING})
    parser.add_argument("--out", type=Path | None, default=None, help="folder for metrics, tables and pictures")
    parser.add_argument(
        "--split", choices=["test", "val", "train", "all"], default="test",
        help="clips of the model's own split; all includes those it learned from",
    )  # fmt: skip
    parser.add_argument(
        "--shuffle", action="store_true", help="show each clip's moments in random order: the score without time"
    )
    _add_json(parser)
    options = guarded(parser, given)
    from pipeline.report.text import print_metrics
    from pipeline.stages.evaluate import evaluate
    from pipeline.stages.models import opened_model

    data = None if options.DATA is None else DataConfig(root=options.DATA, **vars(options.data))
    with opened_model(options.MODEL, options.device, TrackingConfig(uri=options.uri)) as predictor:
        metrics = evaluate(predictor, data, options.split, options.out, options.workers, options.shuffle)
    _print(metrics, options.json, print_metrics(metrics))


def _classify(given: list[str]) -> None:
    parser = _parser("classify", "Label video files: one row per file, a bad file is a row with its reason.")
    _add_model(parser)
    parser.add_argument(
        "SOURCE", type=str, nargs="+", help="files, folders, globs, list files (.txt, a path a line), image folders"
    )
    parser.add_argument("--out", type=Path | None, default=None, help="table: .csv, .jsonl or .parquet; unset: stdout")
    parser.add_argument("--top_k", type=PositiveInt, default=5, help="classes named per file")
    _add_reading(parser, "accept")
    _add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.catalog import Policy
    from pipeline.stages.classify import classify
    from pipeline.stages.models import load_model
    from pipeline.stages.reports import classify_text

    predictor = load_model(options.MODEL, options.device, TrackingConfig(uri=options.uri))
    policy = Policy(LimitsConfig(**vars(options.limits)), options.video.partial)
    result = classify(predictor, options.SOURCE, options.out, options.top_k, options.workers, policy)
    value = {"rows": result.rows, "ok": result.ok, "failed": result.failed, "out": result.out}
    value |= {"flat": result.flat} if result.flat else {}
    _print(value | {"reasons": result.reasons}, options.json, classify_text(result))


def _doctor(given: list[str]) -> None:
    parser = _parser("doctor", "Check the installation; with PATH, decode every file and say what is wrong with it.")
    parser.add_argument("PATH", type=str, nargs="*", default=[], help="files, folders, globs or list files")
    _add_reading(parser, "reject")
    _add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.catalog import Policy
    from pipeline.stages.doctor import as_dicts, check_files, check_installation
    from pipeline.stages.reports import doctor_text, files_text

    if options.PATH:
        found = check_files(options.PATH, Policy(LimitsConfig(**vars(options.limits)), options.video.partial))
        _print(found, options.json, files_text(found))
        return
    checks = check_installation()
    sound = all(check.ok for check in checks)
    _print({"ok": sound, "checks": as_dicts(checks)}, options.json, doctor_text(checks))
    if not sound:
        sys.exit(1)


def _ui(given: list[str]) -> None:
    parser = _parser("ui", "Open the MLflow UI on this folder's store; Ctrl-C ends it.")
    parser.add_argument("--uri", type=str | None, default=None, help="store; unset: as in training")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on; this machine alone")
    parser.add_argument("--port", type=PositiveInt, default=5000, help="port; the next free one if taken")
    options = guarded(parser, given)
    from pipeline.stages.ui import serve

    serve(TrackingConfig(uri=options.uri), options.host, options.port)


def _benchmark(given: list[str]) -> None:
    parser = config_parser(
        "video-lstm benchmark",
        "Show where the time of a training goes on this machine, how fast it could be at best, and what to change. "
        "CONFIG is a YAML file; of a MODEL in its place, classification is timed: " + MODEL_HELP,
    )
    parser.add_argument(
        "--seconds",
        type=PositiveFloat,
        default=30.0,
        help="about how long to measure; longer, where one batch takes longer",
    )
    parser.add_argument("--uri", type=str | None, default=None, help="MLflow store of runs:/ and models:/ addresses")
    _add_json(parser)
    trained, given = _named_model(given)
    options, config = _configured(parser, given)
    device, workers = config.training.device, config.training.workers
    if trained and config != Config(training=TrainingConfig(device=device, workers=workers)):
        raise ConfigError(f"{trained} is a trained model, which has its options; training.device and workers are free")
    from pipeline.report.benchmark_text import benchmark_text
    from pipeline.stages.benchmark.run import as_dict, benchmark_model, benchmark_training

    if trained:
        result = benchmark_model(trained, options.seconds, device, workers, options.uri)
    else:
        result = benchmark_training(config, options.seconds)
    _print(as_dict(result), options.json, benchmark_text(as_dict(result)))


COMMANDS: dict[str, tuple[Command, str]] = {
    "demo": (_demo, "write the demo clips"),
    "doctor": (_doctor, "check the installation, or decode-check files"),
    "ingest": (_ingest, "catalog and split a folder of labelled clips"),
    "extract": (_extract, "compute and keep the features of a frozen encoder"),
    "describe": (_describe, "show a model's steps, shapes, costs and weights"),
    "train": (_train, "train, test and track a classifier"),
    "sweep": (sweep_command, "try many trainings, test the best one"),
    "evaluate": (_evaluate, "score a model on clips it has not seen"),
    "classify": (_classify, "label files into a table"),
    "benchmark": (_benchmark, "show where the time goes and what eases it"),
    "cache": (_cache, "show or clear what is kept on disk to save work"),
    "ui": (_ui, "open the MLflow UI on this folder's store"),
}
