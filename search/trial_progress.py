"""What a search's progress bar shows after each trial."""

from __future__ import annotations

import math
from collections.abc import Callable

from search.display import Advance
from search.outcomes import TrialReport
from space.budgets import Budget


def showing_trials(advance: Advance, budgets: int) -> Callable[[TrialReport], None]:
    """Make the function that moves a search's bar on, to be called after every trial.

    Args:
        advance: Moves the bar, whose unit is trials of all budgets.
        budgets: How many budgets are searched together; of several, the trial's own is named.

    Returns:
        The function.
    """
    finished: dict[Budget, int] = {}

    def on_trial(report: TrialReport) -> None:
        # Some strategies begin with schedules above the budget, such as the dense model.
        best = "not known yet" if math.isnan(report.best) else f"{report.best:.1%}"
        status = f"best {best}, {report.distinct} feasible"
        if budgets > 1:
            status = f"{report.budget.label}: {status}"
        # A continued study's first report also counts the trials of earlier runs.
        advance(report.finished - finished.get(report.budget, 0), status)
        finished[report.budget] = report.finished

    return on_trial
