"""What a study found at each budget: the searched schedule beside dense and the published ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pruners.errors import StudyError, shortened
from pruners.json_files import read_json
from pruners.schedule import SplitEvidence
from space.budgets import budget_label
from studies.files import write_text
from studies.statistics import Difference

SEARCHED = "searched"
"""Name of the schedule that a search found."""

DENSE = "dense"
"""Name of the model without pruning."""


FAR = 1.2
"""A measured share of tokens this many times the priced one flatters a schedule."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScheduleResult(_Record):
    """One schedule's cost and its accuracy on one split.

    Attributes:
        name: ``"searched"``, ``"dense"``, or a published schedule's name.
        tflops: Cost on the target, in 10^12 FLOPs, convention `total`.
        mean_visual_tokens: Visual tokens alive, averaged over the target's decoder layers.
        visual_tokens_per_layer: Visual tokens alive in each of the target's decoder layers.
        evidence: What was measured.
        measured_share: Visual tokens on the measured model as a share of its own, averaged over its
            layers; those and whole tokens cannot follow every schedule. None where it is not known.
        task_intervals: 95 % interval of the relative accuracy on each task alone.
    """

    name: str
    tflops: float
    mean_visual_tokens: float
    visual_tokens_per_layer: tuple[int, ...]
    evidence: SplitEvidence
    measured_share: float | None = None
    task_intervals: dict[str, tuple[float, float]] = {}


class Comparison(_Record):
    """The searched schedule against another one, paired on the same samples.

    Attributes:
        other: Name of the other schedule.
        difference: Relative accuracy of the searched schedule minus the other's.
        interval_95: 95 % bootstrap interval of the difference.
        p_value: Two-sided p-value, Holm-corrected over the budget's comparisons.
        significant: Whether the interval excludes 0 and the p-value is below 0.05.
    """

    other: str
    difference: float
    interval_95: tuple[float, float]
    p_value: float
    significant: bool

    @classmethod
    def of(cls, other: str, difference: Difference) -> Comparison:
        """Name the schedule that a difference is to.

        Args:
            other: Name of the other schedule.
            difference: The searched schedule minus the other.

        Returns:
            The comparison.
        """
        return cls(
            other=other,
            difference=difference.estimate,
            interval_95=difference.interval,
            p_value=difference.p_value,
            significant=difference.significant,
        )


class BudgetResult(_Record):
    """What a study found at one budget.

    Attributes:
        budget: The budget, with its unit and convention.
        priced_for: Name of the shape that costs refer to.
        measured_on: The model whose accuracy was measured.
        split: The split it was measured on.
        samples: Samples of that split.
        trials: Trials that the search had finished.
        evaluations: Samples that the search had scored.
        seconds: Wall-clock time in which trials were under way.
        schedules: The searched schedule first, then dense, then the published ones.
        comparisons: The searched schedule against each other one.
    """

    budget: str
    priced_for: str
    measured_on: str
    split: str
    samples: int
    trials: int
    evaluations: int
    seconds: float
    schedules: tuple[ScheduleResult, ...]
    comparisons: tuple[Comparison, ...]

    def is_flattered(self, schedule: ScheduleResult) -> bool:
        """Whether a schedule keeps far more tokens on the measured model than it is priced for.

        Args:
            schedule: One of `schedules`.

        Returns:
            Whether its share of tokens is there more than `FAR` times the target's.
        """
        if schedule.measured_share is None:
            return False
        dense_tokens = self.schedule(DENSE).mean_visual_tokens
        return schedule.measured_share * dense_tokens > FAR * schedule.mean_visual_tokens

    def schedule(self, name: str) -> ScheduleResult:
        """The result of one schedule.

        Args:
            name: ``"searched"``, ``"dense"``, or a published schedule's name.

        Returns:
            Its result.

        Raises:
            StudyError: There is no such schedule at this budget.
        """
        for result in self.schedules:
            if result.name == name:
                return result
        raise StudyError(
            f"no schedule {name!r} was measured at {budget_label(self.budget)}; "
            f"there are {', '.join(result.name for result in self.schedules)}"
        )


def write_results(results: Sequence[BudgetResult], path: Path) -> None:
    """Write ``results.json``, from which tables and figures can be made again.

    Args:
        results: One result per budget.
        path: The file to write or replace.

    Raises:
        StudyError: The file cannot be written.
    """
    content = [result.model_dump(mode="json") for result in results]
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_results(path: Path) -> list[BudgetResult]:
    """Read ``results.json``.

    Args:
        path: The file.

    Returns:
        One result per budget, as written.

    Raises:
        StudyError: The file cannot be read or holds no results.
    """
    try:
        content = read_json(path)
        return [BudgetResult.model_validate(entry) for entry in content]
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise StudyError(f"{path} does not hold a study's results ({shortened(error)})") from error
