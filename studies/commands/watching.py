"""A running study, shown as it goes on."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from studies.commands.tables import progress_panel
from studies.progress import StudyProgress, read_progress


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
    progress = read_progress(folder, storage)
    if not console.is_terminal:
        _follow_lines(folder, storage, console, interval, progress)
        return
    live = Live(progress_panel(progress), console=console, auto_refresh=False)
    try:
        # Inside, so that Ctrl-C while the first table is drawn leaves the cursor visible too.
        live.start(refresh=True)
        while progress.state == "running":
            time.sleep(interval)
            progress = read_progress(folder, storage)
            live.update(progress_panel(progress), refresh=True)
    except KeyboardInterrupt:
        return  # the study goes on; only looking at it has ended
    finally:
        live.stop()


def _follow_lines(
    folder: Path, storage: str | None, console: Console, interval: float, progress: StudyProgress
) -> None:
    shown = ""
    try:
        while True:
            if (line := _line(progress)) != shown:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
                shown = line
            if progress.state != "running":
                return
            time.sleep(interval)
            progress = read_progress(folder, storage)
    except KeyboardInterrupt:
        return


def _line(progress: StudyProgress) -> str:
    budgets = [
        f"{budget.budget}: {budget.complete} trials"
        + ("" if budget.best is None else f", best {budget.best:.1%}")
        for budget in progress.budgets
    ]
    return f"{progress.state}; {'; '.join(budgets)}"
