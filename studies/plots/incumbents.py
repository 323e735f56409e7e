"""What a search would have answered at any time: its incumbents, by what they cost to find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from studies.reading import StoredStudy
from studies.records import TrialRecord
from studies.results import SEARCHED, BudgetResult


@dataclass(frozen=True)
class Step:
    """The incumbents of some budgets after a trial.

    Attributes:
        samples: Samples scored by this trial and those before it, of all these budgets.
        incumbents: By budget, the trial that knows most of the budget's incumbent at the end of the
            search.
    """

    samples: int
    incumbents: dict[str, TrialRecord]


def incumbent_steps(trials: Iterable[TrialRecord]) -> list[Step]:
    """Go through trials in the order in which they finished.

    The incumbent is the best of the schedules known on the most samples at that time. It is valued
    by all samples that the search scored it on, later ones included: on the first few samples the
    best of many schedules looks better than it is.

    Args:
        trials: Trials of any number of budgets.

    Returns:
        A step for each trial that was scored.
    """
    scored = sorted(
        (trial for trial in trials if trial.accuracy is not None and trial.samples),
        key=lambda trial: (trial.finished is not None, trial.finished, trial.number),
    )
    final = {_schedule(trial): trial for trial in sorted(scored, key=lambda each: each.samples)}
    known: dict[tuple[str, str | None], int] = {}
    best: dict[str, TrialRecord] = {}
    steps: list[Step] = []
    samples = 0
    for trial in scored:
        # What was known of a schedule before a trial cost it nothing.
        samples += max(0, trial.samples - known.get(_schedule(trial), 0))
        known[_schedule(trial)] = max(trial.samples, known.get(_schedule(trial), 0))
        other = best.get(trial.budget)
        if other is None or _rank(trial) > _rank(other):
            best[trial.budget] = trial
        incumbents = {budget: final[_schedule(each)] for budget, each in best.items()}
        steps.append(Step(samples, incumbents))
    return steps


def reported(study: StoredStudy) -> list[BudgetResult]:
    """Collect what a study has reported.

    Args:
        study: The study.

    Returns:
        The results of the budgets that have one.
    """
    return [budget.result for budget in study.budgets if budget.result is not None]


def found(results: Sequence[BudgetResult], budget: str) -> tuple[float, float, float] | None:
    """Look up what was reported of the searched schedule.

    Args:
        results: Results of a study.
        budget: The budget.

    Returns:
        Relative accuracy and both ends of its interval, in percent; None without a result.
    """
    for result in results:
        if result.budget == budget:
            evidence = result.schedule(SEARCHED).evidence
            low, high = evidence.interval_95
            return 100 * evidence.relative_accuracy, 100 * low, 100 * high
    return None


def _schedule(trial: TrialRecord) -> tuple[str, str | None]:
    return trial.budget, trial.measured_hash or trial.content_hash


def _rank(trial: TrialRecord) -> tuple[int, float]:
    return trial.samples, trial.accuracy or 0.0
