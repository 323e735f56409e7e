"""What a search reports while it runs and when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pruners.schedule import Schedule
from space.budgets import Budget
from studies.wording import counted

Stopped = Literal["trials", "timeout", "evaluations", "converged", "interrupted"]

_STOPPED_BECAUSE: Mapping[Stopped, str] = MappingProxyType(
    {
        "trials": "all trials are done",
        "timeout": "the time limit was reached",
        "evaluations": "the evaluations are used up",
        "converged": "more trials promise nothing better",
        "interrupted": "interrupted",
    }
)
"""The same in words."""

_ADVICE: Mapping[Stopped, str] = MappingProxyType(
    {
        "trials": "give it more of them with --trials",
        "timeout": "give it more time with --timeout",
        "evaluations": "let it score more samples",
        "converged": "try another --strategy",
        "interrupted": "the same command goes on",
    }
)
"""What helps where nothing was found until then."""


@dataclass(frozen=True)
class Candidate:
    """A schedule that a search found good.

    Attributes:
        schedule: The schedule, for the target and priced there.
        measured: The same as the measured model runs it.
        value: Its relative accuracy on the samples that it was scored on; the mean over their
            blocks unless these are the whole search split.
        trial: Number of its trial.
        samples: Indices of those samples in the search split.
    """

    schedule: Schedule
    measured: Schedule
    value: float
    trial: int
    samples: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrialReport:
    """What is known after a trial, for whoever watches.

    Attributes:
        budget: The trial's budget.
        finished: Trials at this budget so far.
        value: What the study was told: the mean of the strategy's signal, a prediction when the
            trial was raced out.
        best: Relative accuracy of the best schedule among those scored on the most samples.
        distinct: Schedules that were scored at this budget so far and meet it.
        samples: Samples that this schedule has been scored on.
        raced_out: Whether it left the race.
        duplicate: Whether it behaves as an earlier trial, and cost nothing.
    """

    budget: Budget
    finished: int
    value: float
    best: float
    distinct: int
    samples: int
    raced_out: bool
    duplicate: bool


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found.

    Attributes:
        candidates: What its strategy holds for best, best first, none of them twice.
        trials: Trials that the study has finished.
        evaluations: Samples scored by its trials; duplicates cost none, dense is not counted.
        seconds: Wall-clock time that this call spent on it.
        stopped: Why it ended: enough trials, the time or the evaluations were used up, the strategy
            expected nothing of more trials, or the user interrupted it.
    """

    candidates: tuple[Candidate, ...]
    trials: int
    evaluations: int
    seconds: float
    stopped: Stopped

    @property
    def incumbent(self) -> Candidate | None:
        """The best schedule on the search split; None when there is none yet."""
        return self.candidates[0] if self.candidates else None

    @property
    def in_words(self) -> str:
        """How much was done and why it ended."""
        return (
            f"{counted(self.trials, 'trial')}, {counted(self.evaluations, 'sample')} scored, "
            f"{self.seconds:.0f} s; {_STOPPED_BECAUSE[self.stopped]}"
        )


def nothing_found(budget: Budget, stopped: Stopped) -> str:
    """Say that a search has ended without a schedule, and what would help.

    Args:
        budget: The budget that no schedule met.
        stopped: Why the search ended.

    Returns:
        The message.
    """
    return (
        f"no trial within the budget finished at {budget.label} ({_STOPPED_BECAUSE[stopped]}); "
        f"{_ADVICE[stopped]}"
    )
