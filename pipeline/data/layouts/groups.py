"""The source group of each clip, taken from its path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pipeline.data.layouts.entries import Entry, Listing, relative, some
from pipeline.errors import ConfigError, DataError

KNOWN_PATTERNS = (r"g(\d+)_c", r"person(\d+)")
"""Group patterns that `auto` tries: UCF101's and KTH's file names."""


def compiled(pattern: str) -> re.Pattern[str] | None:
    """The pattern of `data.group_pattern`; None for auto and none.

    Raises:
        ConfigError: it is no regular expression with a parenthesis.
    """
    if pattern in ("auto", "none"):
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group_pattern '{pattern}' is not a regular expression: {error}") from error
    if expression.groups < 1:
        raise ConfigError(f"data.group_pattern '{pattern}' needs a parenthesis around the group, as in g(\\d+)_c")
    return expression


def with_groups(listing: Listing, chosen: str, pattern: re.Pattern[str] | None, base: str) -> Listing:
    """The listing with the groups that `data.group_pattern` asks for.

    A list's group column always wins. Other layouts' own groups stay with auto; a pattern, or none, replaces them.

    Args:
        listing: what a layout found.
        chosen: `data.group_pattern`.
        pattern: the same, compiled.
        base: folder below which the pattern sees each path.

    Raises:
        DataError: the pattern fits no path.
    """
    given = any(entry.group is not None for entry in listing.entries)
    if given and (chosen == "auto" or listing.kind == "list"):
        return listing
    if chosen == "none":
        return _set(listing, [None] * len(listing.entries))
    names = relative((entry.path for entry in listing.entries), base)
    if pattern is None:
        return _by_known_pattern(listing, names)
    groups = _matches(pattern, names)
    lacking = [name for name, group in zip(names, groups, strict=True) if group is None]
    if len(lacking) == len(names):
        raise DataError(
            f"data.group_pattern '{pattern.pattern}' matches no file of {base or '.'}, such as {names[0]};"
            " correct it, or use none"
        )
    if not lacking:
        return _set(listing, groups)
    note = (
        f"data.group_pattern '{pattern.pattern}' fits {len(names) - len(lacking)} of {len(names)} clips; each of the"
        f" others counts as a source of its own: {some(lacking)}"
    )
    return replace(_set(listing, groups), notes=[*listing.notes, note])


def _by_known_pattern(listing: Listing, names: list[str]) -> Listing:
    """Groups of the first known pattern that every name fits, else none; a near miss is worth a note."""
    for known in KNOWN_PATTERNS:
        groups = _matches(re.compile(known), names)
        lacking = [name for name, group in zip(names, groups, strict=True) if group is None]
        if not lacking:
            return _set(listing, groups)
        if 2 * len(lacking) < len(names):
            note = (
                f"{len(lacking)} of {len(names)} clips do not fit {known}, so no groups were taken from names"
                f" ({some(lacking)}); --data.group_pattern '{known}' takes them where they are"
            )
            return replace(listing, notes=[*listing.notes, note])
    return listing


def _matches(pattern: re.Pattern[str], names: Sequence[str]) -> list[str | None]:
    """The first parenthesis in each name; None where the name does not fit, or the parenthesis took no part."""
    return [match.group(1) if (match := pattern.search(name)) else None for name in names]


def _set(listing: Listing, groups: Sequence[str | None]) -> Listing:
    entries: list[Entry] = [replace(e, group=group) for e, group in zip(listing.entries, groups, strict=True)]
    return replace(listing, entries=entries)
