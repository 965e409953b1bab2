"""The search space: which options are varied, and over what; checked against the options themselves."""

from __future__ import annotations

import difflib
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pipeline.config import Config, flatten, to_dict
from pipeline.errors import ConfigError
from pipeline.options import Parser, config_parser, guarded

Value: TypeAlias = bool | int | float | str | None

KEYS = ("values", "low", "high", "log", "step")
FIXED = {
    "task": "trials of different tasks cannot be compared",
    "data.": "it decides which clips a trial is scored on, and trials could not be compared",
    "video.partial": "it decides which clips a trial is scored on, and trials could not be compared",
    "limits.": "it decides which clips a trial is scored on, and trials could not be compared",
    "tracking.": "it changes no result",
    "training.device": "it changes no result",
    "training.workers": "it changes no result",
    "name": "it changes no result",
}
"""Options that must be the same in all trials, or their beginnings, and why."""
MOST_POINTS = 100_000
"""Largest grid."""
MOST_CORNERS = 4096
"""Most combinations that are put together to see whether a value fits to any."""


@dataclass(frozen=True)
class Dimension:
    """An option that is varied: over `values`, or from `low` to `high`.

    Attributes:
        name: dotted name of the option.
        values: to choose from; empty where there is an interval.
        low, high: both included; int for an option that is a whole number.
        step: distance of the points between them; None: all (whole) numbers.
        log: orders of magnitude count alike.
    """

    name: str
    values: tuple[Value, ...] = ()
    low: int | float = 0
    high: int | float = 0
    step: int | float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """An interval of whole numbers."""
        return isinstance(self.low, int)

    def points(self) -> list[Value]:
        """All its values, for a grid.

        Raises:
            ConfigError: a continuum.
        """
        if self.values:
            return list(self.values)
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            raise ConfigError(f"space: {self.name} is a continuum, of which there is no grid; give it values or a step")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [self.low + i * step for i in range(count)]


def read_space(space: Mapping[str, Mapping[str, Any]]) -> list[Dimension]:
    """The space of a sweep's configuration.

    Raises:
        ConfigError: empty, an option that there is not or that must not vary, a value that it does not take, an
            interval that is none.
    """
    if not space:
        raise ConfigError(
            "space is empty; name an option to vary, such as space: "
            "{training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"
        )
    parser = config_parser("video-lstm train", "")
    return [_dimension(parser, str(name), given) for name, given in space.items()]


def check_grid(dimensions: list[Dimension]) -> int:
    """How many combinations there are.

    Raises:
        ConfigError: infinitely or far too many.
    """
    count = math.prod(len(dimension.points()) for dimension in dimensions)
    if count > MOST_POINTS:
        raise ConfigError(f"space: a grid of {count} combinations; use fewer values, larger steps, or another sampler")
    return count


def check_fit(base: Config, dimensions: list[Dimension]) -> None:
    """Each value must fit to the base together with some choice of the others; what fits to some alone is no mistake.

    Raises:
        ConfigError: one that does not.
    """
    ends = [[(d.name, value) for value in d.values or (d.low, d.high)] for d in dimensions]
    if math.prod(map(len, ends)) > MOST_CORNERS:
        return
    fitting: set[tuple[str, Value]] = set()
    complaints: dict[tuple[str, Value], ConfigError] = {}
    for corner in itertools.product(*ends):
        try:
            applied(base, dict(corner))
        except ConfigError as error:
            complaints |= dict.fromkeys(corner, error)
        else:
            fitting |= set(corner)
    for end, complaint in complaints.items():
        if end not in fitting:
            raise ConfigError(f"space: {end[0]} cannot be {end[1]}: {complaint}")


def applied(base: Config, values: Mapping[str, Value]) -> Config:
    """The base with some options changed.

    Raises:
        ConfigError: values that do not fit together.
    """
    sections: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in values.items():
        section, _, option = name.rpartition(".")
        sections[section][option] = value
    top = sections.pop("", {})  # a section at once: its check may find one option wrong without the other
    return replace(base, **top, **{name: replace(getattr(base, name), **new) for name, new in sections.items()})


def _dimension(parser: Parser, name: str, given: Any) -> Dimension:
    _check_name(parser, name)
    if not isinstance(given, Mapping):
        raise ConfigError(f"space: {name} needs {{values: [...]}} or {{low: ..., high: ...}}, not {given!r}")
    for key in given:
        if key not in KEYS:
            close = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(KEYS)}"
            raise ConfigError(f"space: {name} has no '{key}'; {hint}")
    if "values" in given:
        if len(given) > 1 or not isinstance(given["values"], list) or not given["values"]:
            raise ConfigError(f"space: {name}.values is a list of at least one value, and nothing beside it")
        return Dimension(name, values=tuple(_value(parser, name, value) for value in given["values"]))
    return _interval(parser, name, given)


def _interval(parser: Parser, name: str, given: Mapping[str, Any]) -> Dimension:
    if "low" not in given or "high" not in given:
        raise ConfigError(f"space: {name} needs both low and high, or values")
    low, high = (_number(name, _value(parser, name, given[key])) for key in ("low", "high"))
    step, log = given.get("step"), given.get("log", False)
    if not low < high:
        raise ConfigError(f"space: {name}.low must be below high; they are {low:g} and {high:g}")
    if not isinstance(log, bool):
        raise ConfigError(f"space: {name}.log is true or false, not {log!r}")
    if log and (step is not None or low <= 0):
        raise ConfigError(f"space: {name} with log: true needs low above 0, and no step")
    if step is None:
        return Dimension(name, low=low, high=high, log=log)
    whole = isinstance(low, int)
    if isinstance(step, bool) or not isinstance(step, int | float) or step <= 0 or (whole and step != int(step)):
        raise ConfigError(f"space: {name}.step is a {'whole ' if whole else ''}number above 0, not {step!r}")
    return Dimension(name, low=low, high=high, step=int(step) if whole else float(step))


def _check_name(parser: Parser, name: str) -> None:
    options = flatten(to_dict(Config()))
    if name not in options:
        inside = [option for option in options if option.startswith(f"{name}.")]
        if inside:
            raise ConfigError(f"space: {name} is a section; name an option of it, such as {inside[0]}")
        _parsed(parser, name, "")  # finds it unknown, and the one that was meant
    for beginning, why in FIXED.items():
        if name == beginning or (beginning.endswith(".") and name.startswith(beginning)):
            raise ConfigError(f"space: {name} must not vary: {why}")


def _number(name: str, value: Value) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"space: {name} is no number, so it has no low and high; give it values")
    return value


def _value(parser: Parser, name: str, given: Any) -> Value:
    """As the option's own type has it; plain, for the parser's restricted numbers are subclasses."""
    if isinstance(given, list | dict):
        raise ConfigError(f"space: {name} takes one value at a time, not {given!r}")
    text = "null" if given is None else str(given).lower() if isinstance(given, bool) else str(given)
    value = _parsed(parser, name, text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value  # type: ignore[no-any-return]
    return int(value) if isinstance(value, int) else float(value)


def _parsed(parser: Parser, name: str, text: str) -> Any:
    try:
        return guarded(parser, [f"--{name}={text}"])[name]
    except ConfigError as error:
        raise ConfigError(f"space: {error}" + (f" (given: {text})" if text else "")) from None
