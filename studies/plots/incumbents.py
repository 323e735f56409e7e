"""What a search would have answered at any time: its incumbents, by what they cost to find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from studies.reading import StoredStudy
from studies.records import TrialRecord
from studies.results import SEARCHED, BudgetResult
from studies.schedule_levels import schedule_levels, variance_ratio


@dataclass(frozen=True)
class Incumbent:
    """The schedule that looks best at some time.

    Attributes:
        schedule: Hash of the schedule as the model measures it.
        tflops: Its cost, in 10^12 FLOPs.
        accuracy: What is known of its relative accuracy when the search has ended.
    """

    schedule: str
    tflops: float
    accuracy: float


@dataclass(frozen=True)
class Step:
    """The incumbents of some budgets after a trial.

    Attributes:
        samples: Samples scored by this trial and those before it, of all these budgets.
        incumbents: The incumbent of each budget that has one.
    """

    samples: int
    incumbents: dict[str, Incumbent]


def incumbent_steps(trials: Iterable[TrialRecord]) -> list[Step]:
    """Go through trials in the order in which they finished.

    The incumbent is the schedule within the budget with the highest level, as
    `studies.schedule_levels` estimates it from the trials so far. It is valued by its level at the
    end, which all trials of the budget tell of: the best of many schedules looks better on its
    first few samples than it is.

    Args:
        trials: Trials of any number of budgets.

    Returns:
        A step for each trial that was scored, from the first one within its budget on.
    """
    scored = sorted(
        (trial for trial in trials if trial.blocks and trial.samples and trial.tflops),
        key=lambda trial: (trial.finished is not None, trial.finished, trial.number),
    )
    searches: dict[str, _Search] = {}
    for trial in scored:
        searches.setdefault(trial.budget, _Search()).add(trial)
    for search in searches.values():
        search.begin_again()
    steps: list[Step] = []
    best: dict[str, Incumbent] = {}
    samples = 0
    for trial in scored:
        search = searches[trial.budget]
        samples += search.add(trial)
        incumbent = search.incumbent()
        if incumbent is not None:
            best[trial.budget] = incumbent
        if best:
            steps.append(Step(samples, dict(best)))
    return steps


class _Search:
    """What is known of the schedules of one budget, trial by trial."""

    def __init__(self) -> None:
        self._blocks: dict[str, tuple[float, ...]] = {}
        self._samples: dict[str, int] = {}
        self._tflops: dict[str, float] = {}
        self._final: dict[str, float] = {}
        self._ratio = 0.0

    def add(self, trial: TrialRecord) -> int:
        """Take in a trial, and tell how many samples it scored that were not known before."""
        schedule = trial.measured_hash or trial.content_hash or ""
        if len(trial.blocks) > len(self._blocks.get(schedule, ())):
            self._blocks[schedule] = trial.blocks
        if trial.within_budget:
            self._tflops.setdefault(schedule, trial.tflops or 0.0)
        known = self._samples.get(schedule, 0)
        self._samples[schedule] = max(known, trial.samples)
        return self._samples[schedule] - known

    def begin_again(self) -> None:
        """Keep what is known at the end, and forget the trials."""
        self._ratio = variance_ratio(self._blocks)
        levels = schedule_levels(self._blocks, self._ratio)
        self._final = {schedule: level.estimate for schedule, level in levels.items()}
        self._blocks, self._samples, self._tflops = {}, {}, {}

    def incumbent(self) -> Incumbent | None:
        """The schedule that looks best now of those within the budget, if there is one."""
        levels = schedule_levels(self._blocks, self._ratio)
        best = max(self._tflops, key=lambda schedule: levels[schedule].estimate, default=None)
        return None if best is None else Incumbent(best, self._tflops[best], self._final[best])


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
