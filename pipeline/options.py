"""The command line's parser: jsonargparse over the configuration's dataclasses, with errors in one line.

Nothing here imports torch, so help and errors come at once.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from pipeline.config import Config
from pipeline.errors import ConfigError, UserError

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _Help(DefaultHelpFormatter):
    """Help that keeps each option's names and its meaning readable at 100 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)


class Parser(ArgumentParser):
    """A parser whose complaints are `ConfigError`s of one line that name the nearest option there is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_Help, default_env=False, allow_abbrev=False, exit_on_error=True, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """Called by argparse and jsonargparse with what is wrong.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(self._explain(str(message)))

    def option_names(self) -> list[str]:
        """Every option by its dotted name."""
        names = {name.lstrip("-") for action in self._actions for name in action.option_strings}
        return sorted(name for name in names if not name.endswith("+"))

    def _explain(self, message: str) -> str:
        message = " ".join(message.split())
        unknown = _unknown_key(message)
        if unknown is not None:
            return f"there is no option '{unknown}'{self._nearest(unknown)}"
        message = re.sub(r"(?:a )?typing\.Literal\[(.*?)\]", lambda m: "one of " + m[1].replace("'", ""), message)
        message = re.sub(r'^Parser key "([^"]+)": ', r"\1: ", message)
        message = re.sub(r"Problems parsing config: (while .*)", r"not a YAML file: \1", message)
        message = re.sub(r"Unexpected config: *", "the configuration file holds no options: ", message).rstrip(": ")
        message = re.sub(
            r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] .*", _either, message
        )
        return re.sub(r"Not of type (\w+): .*", lambda m: f"must be {_RANGES.get(m[1], m[1])}", message)

    def _nearest(self, name: str) -> str:
        names = self.option_names()
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        if not close:
            last = [known for known in names if known.rpartition(".")[2] == name.rpartition(".")[2]]
            close = last[:1]
        return f"; did you mean '{close[0]}'?" if close else "; --help lists all"


_RANGES = {
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number, 0 or more",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number, 0 or more",
    "ClosedUnitInterval": "a number from 0 to 1",
    "Fraction": "a number from 0 to below 1",
    "AreaFraction": "a number above 0, at most 1",
}


def _either(match: re.Match[str]) -> str:
    """Several types that an option may have, in words."""
    named = re.sub(r"<class '(?:\w+\.)*(\w+)'>", lambda m: _RANGES.get(m[1], m[1]), match[1])
    return f"must be {named.replace(', one of ', ', or ')}"


def _unknown_key(message: str) -> str | None:
    """The key that a jsonargparse complaint says is not there."""
    group = re.search(r"Group '([^']+)' does not accept option '([^']+)'", message)
    if group:
        return f"{group[1]}.{group[2].removeprefix(group[1] + '.')}"
    for pattern in (
        r"[Uu]nrecognized arguments: --([^\s=]+)",
        r"Option '([^']+)' is not accepted",
        r"Key '([^']+)' is not expected",
        r"does not accept nested key '([^']+)'",
        r"No action for key \"([^\"]+)\"",
    ):
        found = re.search(pattern, message)
        if found:
            return found[1]
    return None


def config_parser(prog: str, description: str) -> Parser:
    """A parser of the whole configuration: YAML files through --config, every option by its dotted name."""
    parser = Parser(prog=prog, description=description, usage=f"{prog} CONFIG [--section.option value ...]")
    parser.add_argument(
        "--config", action="config", help="YAML file; CONFIG without --config is the same. Later ones win."
    )
    parser.add_class_arguments(Config)
    return parser


def to_config(parser: Parser, parsed: Any) -> Config:
    """The `Config` in a parser's result; other options in it are left alone.

    Raises:
        ConfigError: values that do not fit together.
    """
    names = Config.__dataclass_fields__.keys()
    for section in (name for name in names if name not in ("name", "task", "seed")):
        if not isinstance(parsed[section], Namespace):
            raise ConfigError(f"{section} is a section of options, not {parsed[section]!r}")
    values = parser.instantiate(parsed).as_dict()
    return Config(**{name: values[name] for name in names})


def load_config(*paths: str | Path, overrides: list[str] | None = None) -> Config:
    """Read YAML files, later ones winning, then `overrides` as on the command line.

    Raises:
        ConfigError: a file that is not there or not YAML, an unknown key, a wrong type or range.

    Example:
        >>> load_config("configs/demo.yaml", overrides=["--training.epochs", "3"])
    """
    parser = config_parser("video-lstm train", "")
    arguments = [part for path in paths for part in ("--config", str(path))]
    parsed = guarded(parser, [*arguments, *(overrides or [])])
    return to_config(parser, parsed)


def guarded(parser: Parser, arguments: list[str]) -> Any:
    """Parse; whatever a user can get wrong comes out as a `ConfigError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return parser.parse_args(arguments)
        except UserError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(" ".join(str(error).split())) from None


def stdout(text: str) -> None:
    """Results, and nothing but results, go here; of several processes that work together, those of the first."""
    if os.environ.get("RANK", "0") != "0":
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def add_json(parser: Parser) -> None:
    """The option of every command that has a result."""
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")


def print_result(value: dict[str, Any], as_json: bool, text: str) -> None:
    """The result on stdout, for programs or for people."""
    stdout(json.dumps(value, allow_nan=False, default=str) if as_json else text)
