"""The command line: one command per stage; parse, call, print.

Results go to stdout, progress and messages to stderr. Nothing heavy is imported before the options are known to be
right.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from pipeline import __version__
from pipeline.errors import Preempted, UserError
from pipeline.options import stdout
from pipeline.process import prepare_process
from pipeline.signals import stops

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("files", "write the demo clips"),
    "doctor": ("files", "check the installation, or decode-check files"),
    "ingest": ("files", "catalog and split a folder of labelled clips"),
    "extract": ("files", "compute and keep the features of a frozen encoder"),
    "describe": ("training", "show a model's steps, shapes, costs and weights"),
    "train": ("training", "train, test and track a classifier"),
    "sweep": ("sweep", "try many trainings, test the best one"),
    "evaluate": ("models", "score a model on clips it has not seen"),
    "classify": ("models", "label files into a table"),
    "compare": ("registry", "compare two models clip by clip"),
    "register": ("registry", "make a model a version in MLflow's registry"),
    "timeline": ("timeline", "label long recordings over time: events, subtitles, picture"),
    "export": ("export", "write a model as ONNX graphs and a torch.export program"),
    "watch": ("watch", "answer to cameras and streams as they go on"),
    "tune_watch": ("watch", "choose on validation clips how a model watches"),
    "explain": ("explain", "show what a model's answer to a file rests on"),
    "benchmark": ("training", "show where the time goes and what eases it"),
    "cache": ("files", "show or clear what is kept on disk to save work"),
    "sync": ("tracking", "send to MLflow what a server has missed"),
    "ui": ("tracking", "open the MLflow UI on this folder's store"),
}
"""Command -> the file beside this one whose function NAME_command does it, and what `--help` says of it."""

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `video-lstm`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    prepare_process()
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
    file, _ = COMMANDS[given[0]]
    getattr(import_module(f"{__name__}.{file}"), f"{given[0]}_command")(given[1:])


def _usage() -> str:
    lines = ["usage: video-lstm COMMAND ...", "", "From a folder of labelled video clips to labels.", ""]
    lines += [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "video-lstm COMMAND --help explains a command and lists its options.",
              "--debug before or after any command shows the traceback of an error."]  # fmt: skip
    return "\n".join(lines)


def _complain(message: str) -> None:
    print(f"video-lstm: {' '.join(message.split())}", file=sys.stderr)
