"""The commands that train, and that look at a training before it starts: train, describe, benchmark."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveFloat, PositiveInt

from pipeline.cli.shared import MODEL_HELP, configured, named_model
from pipeline.config import Config, TrainingConfig
from pipeline.errors import ConfigError
from pipeline.options import add_json, config_parser, print_result


def train_command(given: list[str]) -> None:
    """Parse, call, print."""
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
    add_json(parser)
    options, config = configured(parser, given)
    if options.find_rate:
        from pipeline.stages.find_rate import find_rate
        from pipeline.stages.reports import rate_text

        found = find_rate(config, options.out)
        print_result(asdict(found), options.json, rate_text(found))
        return
    if config.data.folds and not config.data.fold:
        _cross_validate(config, options)
        return
    from pipeline.report.text import print_metrics
    from pipeline.stages.train import train

    result = train(config, options.out, options.fresh, options.resume)
    value = {"checkpoint": result.checkpoint, "run_id": result.run_id, "folder": result.folder, "test": result.test}
    test = print_metrics(result.test) if result.test else "not tested: data.test is 0"
    print_result(value, options.json, f"{test}\ncheckpoint  {result.checkpoint}\nreport      {result.folder}/report")


def _cross_validate(config: Config, options: Any) -> None:
    """`train` where there are folds."""
    from pipeline.report.folds import folds_text
    from pipeline.report.text import print_metrics
    from pipeline.stages.cross_validate import as_json, cross_validate

    result = cross_validate(config, options.out, options.fresh, options.resume)
    table = folds_text([fold.test for fold in result.folds], result.pooled)
    text = f"{table}\n\n{print_metrics(result.pooled)}\nmodels  {result.folder}/fold-*\nreport  {result.folder}/report"
    print_result(as_json(result), options.json, text)


def describe_command(given: list[str]) -> None:
    """Parse, call, print."""
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
    add_json(parser)
    trained, given = named_model(given)
    options, config = configured(parser, given)
    if trained and (config != Config() or options.classes is not None):
        raise ConfigError(f"{trained} is a trained model, which has its options; give none but --uri and --json")
    import shutil

    from pipeline.report.description import description_text
    from pipeline.stages.describe import describe_config, describe_model

    result = describe_model(trained, options.uri) if trained else describe_config(config, options.classes)
    value = asdict(result)
    print_result(value, options.json, description_text(value, shutil.get_terminal_size((100, 24)).columns))


def benchmark_command(given: list[str]) -> None:
    """Parse, call, print."""
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
    add_json(parser)
    trained, given = named_model(given)
    options, config = configured(parser, given)
    device, workers = config.training.device, config.training.workers
    if trained and config != Config(training=TrainingConfig(device=device, workers=workers)):
        raise ConfigError(f"{trained} is a trained model, which has its options; training.device and workers are free")
    from pipeline.report.benchmark_text import benchmark_text
    from pipeline.stages.benchmark.run import as_dict, benchmark_model, benchmark_training

    if trained:
        result = benchmark_model(trained, options.seconds, device, workers, options.uri)
    else:
        result = benchmark_training(config, options.seconds)
    print_result(as_dict(result), options.json, benchmark_text(as_dict(result)))
