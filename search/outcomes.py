"""What a search reports while it runs and when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pruners.schedule import Schedule

Stopped = Literal["trials", "timeout", "evaluations", "interrupted"]


@dataclass(frozen=True)
class Candidate:
    """A schedule that was scored on every sample of the search split.

    Attributes:
        schedule: The schedule, for the target and priced there.
        measured: The same as the measured model runs it.
        value: Its relative accuracy on the search split.
        trial: Number of its trial.
    """

    schedule: Schedule
    measured: Schedule
    value: float
    trial: int


@dataclass(frozen=True)
class TrialReport:
    """What is known after a trial, for whoever watches.

    Attributes:
        finished: Trials of the study so far.
        value: Relative accuracy of this trial; a prediction when it was raced out.
        best: Relative accuracy of the incumbent.
        distinct: Schedules that were scored so far; all of them meet the budget.
        samples: Samples that this trial was scored on.
        raced_out: Whether it left the race.
        duplicate: Whether it behaves as an earlier trial, and cost nothing.
    """

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
        candidates: Schedules scored on the whole search split, best first, none of them twice.
        trials: Trials that the study has finished.
        evaluations: Samples scored by its trials; duplicates cost none, dense is not counted.
        seconds: Wall-clock time of this call.
        stopped: Why it ended: enough trials, the time or the evaluations were used up, or the user
            interrupted it.
    """

    candidates: tuple[Candidate, ...]
    trials: int
    evaluations: int
    seconds: float
    stopped: Stopped

    @property
    def incumbent(self) -> Candidate | None:
        """The best schedule on the search split; None when no trial has finished."""
        return self.candidates[0] if self.candidates else None
