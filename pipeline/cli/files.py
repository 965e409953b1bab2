"""The commands about clips and what is kept of them: demo, doctor, ingest, extract, cache."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from pipeline.cli.shared import add_reading, command_parser, configured
from pipeline.config import DataConfig, LimitsConfig, Task
from pipeline.options import add_json, config_parser, guarded, print_result

DEMO_HELP = (
    "label: eight motions; frame_label: phases of motion; regression: the number of turns; frame_regression: the "
    "horizontal position"
)


def demo_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser("demo", "Write the demo clips of a task: real video files of one moving object.")
    parser.add_argument("DIR", type=str, help="folder to write to; made if needed")
    parser.add_argument(
        "--groups", type=PositiveInt, default=120, help="groups of clips with one background and object"
    )
    parser.add_argument("--task", type=Task, default="label", help=DEMO_HELP)
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="other seeds give other clips")
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.demo import clips_per_group, write_demo
    from pipeline.stages.progress import bar

    with bar("rendering", options.groups * clips_per_group(options.task)) as advance:
        count = write_demo(options.DIR, options.groups, options.seed, advance, options.task)
    print_result({"clips": count, "dir": options.DIR}, options.json, f"{count} clips in {options.DIR}")


def doctor_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "doctor", "Check the installation; with PATH, decode every file and say what is wrong with it."
    )
    parser.add_argument("PATH", type=str, nargs="*", default=[], help="files, folders, globs or list files")
    add_reading(parser, "reject")
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.catalog import Policy
    from pipeline.stages.doctor import as_dicts, check_files, check_installation
    from pipeline.stages.reports import doctor_text, files_text

    if options.PATH:
        found = check_files(options.PATH, Policy(LimitsConfig(**vars(options.limits)), options.video.partial))
        print_result(found, options.json, files_text(found))
        return
    checks = check_installation()
    sound = all(check.ok for check in checks)
    print_result({"ok": sound, "checks": as_dicts(checks)}, options.json, doctor_text(checks))
    if not sound:
        sys.exit(1)


def ingest_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser(
        "ingest", "Decode every file once, record what it holds, and split the clips without leaks."
    )
    parser.add_argument("DATA", type=str, help="folder of clips or a list of them; docs/data.md shows the layouts")
    parser.add_argument("--out", type=Path | None, default=None, help="write the catalog: .parquet or .csv")
    parser.add_argument(
        "--task", type=Task, default="label", help="what is to be learned; docs/tasks.md shows the lists"
    )
    parser.add_class_arguments(DataConfig, "data", skip={"root"})
    add_reading(parser, "reject")
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.data.catalog import Policy
    from pipeline.stages.ingest import ingest
    from pipeline.stages.reports import ingest_text

    policy = Policy(LimitsConfig(**vars(options.limits)), options.video.partial)
    result = ingest(DataConfig(root=options.DATA, **vars(options.data)), options.out, policy=policy, task=options.task)
    value = result.summary | {"near_duplicates": [asdict(pair) for pair in result.leaks]}
    print_result(value, options.json, ingest_text(result, options.out))


def extract_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = config_parser(
        "video-lstm extract",
        "Compute and keep the features of a frozen encoder for all clips of a configuration, as `train` would. What is "
        "kept already is not computed again.",
    )
    parser.add_argument("--out", type=Path | None, default=None, help="also write a file per clip and index.parquet")
    add_json(parser)
    options, config = configured(parser, given)
    from pipeline.stages.extract_all import extract_all
    from pipeline.stages.reports import extract_text

    result = extract_all(config, options.out)
    print_result(asdict(result), options.json, extract_text(result))


def cache_command(given: list[str]) -> None:
    """Parse, call, print."""
    parser = command_parser("cache", "Show what is kept on disk to save work: features, and findings about files.")
    parser.add_argument("--clear", action="store_true", help="remove all features; they are made again when needed")
    parser.add_argument(
        "--all", action="store_true", help="with --clear: also the findings about files, and ONNX graphs"
    )
    parser.add_argument(
        "--limit", type=str | None, default=None, help="size such as 5GB: remove what was not used for longest above it"
    )
    add_json(parser)
    options = guarded(parser, given)
    from pipeline.stages.cache import cache_text, manage_cache

    result = manage_cache(options.clear, options.all, options.limit)
    print_result(asdict(result), options.json, cache_text(result))
