"""A running study, shown as it goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live

from space.budgets import budget_label
from studies.commands.tables import progress_panel
from studies.progress import StudyProgress, read_progress
from studies.signals import FirstSignal
from studies.wording import counted

_NAP = 0.1  # seconds after which a pause looks for Ctrl-C


class _CtrlC(FirstSignal):
    """Notes the first Ctrl-C.

    Raised as an exception, Ctrl-C is lost where it arrives in a destructor, and reading a database
    runs many of these.
    """

    def __init__(self) -> None:
        super().__init__(signal.SIGINT)

    @property
    def pressed(self) -> bool:
        """Whether it was pressed."""
        return self.signal is not None

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until Ctrl-C."""
        end = time.monotonic() + seconds
        while not self.pressed and (left := end - time.monotonic()) > 0:
            time.sleep(min(_NAP, left))


def watch(folder: Path, storage: str | None, console: Console, interval: float) -> None:
    """Show a study until its run ends, or the user presses Ctrl-C.

    On a terminal one table is kept up to date, elsewhere a line is printed whenever a trial ends.

    Args:
        folder: The study's folder.
        storage: Address of the Optuna storage that holds its trials; None for its ``study.db``.
        console: Where to show it.
        interval: Seconds between two looks.

    Raises:
        PrunetuneError: The study cannot be read.
    """
    with _CtrlC() as ctrl_c:
        looks = _looks(folder, storage, interval, ctrl_c)
        if console.is_terminal:
            _keep_table(looks, console)
        else:
            _print_lines(looks, console)


def _looks(
    folder: Path, storage: str | None, interval: float, ctrl_c: _CtrlC
) -> Iterator[StudyProgress]:
    while not ctrl_c.pressed:
        progress = read_progress(folder, storage)
        yield progress
        if progress.state != "running":
            return
        ctrl_c.pause(interval)


def _keep_table(looks: Iterator[StudyProgress], console: Console) -> None:
    first = next(looks, None)  # before anything is drawn: it may be an error
    if first is None:
        return
    live = Live(progress_panel(first), console=console, auto_refresh=False)
    try:
        # Inside, so that a second Ctrl-C while a table is drawn leaves the cursor visible too.
        live.start(refresh=True)
        for progress in looks:
            live.update(progress_panel(progress), refresh=True)
    finally:
        live.stop()


def _print_lines(looks: Iterator[StudyProgress], console: Console) -> None:
    shown = ""
    for progress in looks:
        if (line := _line(progress)) != shown:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            shown = line


def _line(progress: StudyProgress) -> str:
    budgets = [
        f"{budget_label(budget.budget)}: {counted(budget.complete, 'trial')}"
        + ("" if budget.best is None else f", best {budget.best:.1%}")
        for budget in progress.budgets
    ]
    return f"{progress.state}; {'; '.join(budgets)}"
