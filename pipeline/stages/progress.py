"""Progress for people: bars and messages on stderr, never on stdout; bars only where a terminal shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_silent: ContextVar[bool] = ContextVar("silent", default=False)


def speaks() -> bool:
    """Whether this process shows anything: of several that train together the first does (`torchrun` sets $RANK)."""
    return os.environ.get("RANK", "0") == "0" and not _silent.get()


@contextmanager
def quiet() -> Iterator[None]:
    """Show nothing of what is done within: a training that is a small part of something else. A bar that is there
    already stays.
    """
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def say(message: str) -> None:
    """One line on stderr."""
    if not speaks():
        return
    # made anew each time: a console keeps the stderr it was born with, and tests and notebooks replace it
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar with speed and time left; yields a function to call with the number of things just done.

    A total of None is not known.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not (console.is_terminal and speaks())
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


class _Speed(TextColumn):
    """Things per second, once that is known."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")
