"""What the terminal shows while a search runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINES = 5  # lines of progress where there is no terminal to draw a bar on


class Advance(Protocol):
    """Moves a bar on."""

    def __call__(self, amount: int, status: str = "") -> None:
        """Move on by an amount of the bar's unit, with a new status beside it."""


class Display:
    """Lines, tables and progress bars on one console.

    Args:
        console: Where to print.
        quiet: Whether to leave out everything but results.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet

    def say(self, text: str) -> None:
        """Print a line about the run."""
        if not self._quiet:
            self.show(text)

    def show(self, text: str) -> None:
        """Print a line of the result, even when quiet."""
        # Lines are for copying: paths must not be wrapped, coloured or read as markup.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self, draw: Callable[[Console], None]) -> None:
        """Let a table of results be drawn on the console, even when quiet."""
        draw(self._console)

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Advance]:
        """Show progress with an estimate while the block runs.

        Args:
            description: What is being done.
            total: How much there is to do.

        Yields:
            A function to be called as the work goes on.
        """
        if self._quiet:
            yield _ignore
        elif self._console.is_terminal:
            with self._rich_bar() as progress:
                task = progress.add_task(description, total=total, status="")
                yield _rich_advance(progress, task)
        else:
            yield _line_advance(self.show, description, total)

    def _rich_bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[status]}"),
            console=self._console,
        )


def _ignore(amount: int, status: str = "") -> None:
    """Show nothing."""


def _rich_advance(progress: Progress, task: TaskID) -> Advance:
    def advance(amount: int, status: str = "") -> None:
        progress.update(task, advance=amount, status=status)

    return advance


def _line_advance(show: Callable[[str], None], description: str, total: int) -> Advance:
    done = shown = 0

    def advance(amount: int, status: str = "") -> None:
        nonlocal done, shown
        done += amount
        step = _LINES * done // max(1, total)
        if step > shown:
            shown = step
            show(f"{description}: {done}/{total} {status}".rstrip())

    return advance
