"""What `search_quality.py` keeps of its runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from records import Record

from pruners.errors import DataError
from studies.files import write_text

GOAL_SHARE = 4
"""Ours shall need at most this part of the samples of the best peer."""


class BudgetRun(Record):
    """One search at one budget: what it held, whatever that is worth.

    Attributes:
        mean_tokens: The budget: visual tokens as a mean over decoder layers.
        trials: Trials of the search.
        samples: Samples that they scored.
        incumbents: Samples scored, and the content hash of the incumbent as it was measured from
            then on, where it changes; the last is what the search found.
    """

    mean_tokens: int
    trials: int
    samples: int
    incumbents: tuple[tuple[int, str], ...]


class ValuedRun(Record):
    """One search at one budget with what its incumbents are worth.

    Attributes:
        mean_tokens: The budget: visual tokens as a mean over decoder layers.
        samples: Samples that its trials scored.
        content_hash: Hash of the last incumbent.
        curve: Samples scored, and the incumbent's relative accuracy on the report split from then
            on.
    """

    mean_tokens: int
    samples: int
    content_hash: str
    curve: tuple[tuple[int, float], ...]

    @property
    def report_accuracy(self) -> float:
        """Relative accuracy of the last incumbent on the report split."""
        return self.curve[-1][1]


class _OneStrategy(Record):
    """One strategy with one seed at all budgets.

    Attributes:
        strategy: Name of the strategy.
        cost: Samples that it may score per budget.
        seed: Seed of the search.
        samples_per_trial: Samples of each trial, for strategies that have a fixed number.
        table: Fingerprint of the table that it searched.
        seconds: Time that it took.
    """

    strategy: str
    cost: int
    seed: int
    samples_per_trial: int | None
    table: str
    seconds: float


class ValuedCell(_OneStrategy):
    """A cell with what its incumbents are worth.

    Attributes:
        budgets: The searches.
    """

    budgets: tuple[ValuedRun, ...]


class Cell(_OneStrategy):
    """What one strategy with one seed found, as it is kept.

    Attributes:
        budgets: The searches.
    """

    budgets: tuple[BudgetRun, ...]

    def write(self, path: Path) -> None:
        """Write the cell as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.model_dump_json(indent=1) + "\n")


def read_cell(path: Path) -> Cell:
    """Read a cell.

    Raises:
        DataError: The file is none.
    """
    try:
        return Cell.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} is no cell of this benchmark ({error}); remove it") from error


class Estimate(Record):
    """A mean over seeds with its 95 % interval (Student's t)."""

    mean: float
    interval_95: tuple[float, float]

    @property
    def not_below_zero(self) -> bool:
        """Whether the interval reaches 0: of a difference, whether the first is not behind."""
        return self.interval_95[1] >= 0


class Curve(Record):
    """The incumbent's mean relative accuracy on the report split while searches run.

    Attributes:
        samples: Samples scored, rising.
        mean: Mean over seeds.
        low: Lower ends of the 95 % intervals.
        high: Upper ends.
    """

    samples: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Result(Record):
    """A strategy at one budget and cost.

    Attributes:
        strategy: Name of the strategy.
        mean_tokens: The budget.
        cost: Samples that it may score.
        samples: Samples that it scored, mean over seeds.
        samples_per_trial: Samples of each trial, for strategies that have a fixed number.
        relative_accuracy: Of the incumbents, on the report split.
        per_seed: The same of each seed.
        per_seed_at_a_quarter: The same after a quarter of `cost`; None where a seed had no
            incumbent then.
        regret_to_report_best: What is missing to the schedule that is best on the report split.
        regret_to_search_best: What is missing to the schedule that is best on the search split.
        ours_minus_this: Paired difference over seeds; None for ours itself.
        curve: The incumbent while searches run.
    """

    strategy: str
    mean_tokens: int
    cost: int
    samples: float
    samples_per_trial: int | None
    relative_accuracy: Estimate
    per_seed: tuple[float, ...]
    per_seed_at_a_quarter: tuple[float, ...] | None
    regret_to_report_best: Estimate
    regret_to_search_best: Estimate
    ours_minus_this: Estimate | None
    curve: Curve


class Verdict(Record):
    """How ours does against the best peer at one budget and cost.

    Attributes:
        mean_tokens: The budget.
        cost: Samples per budget.
        best_peer: The peer with the highest mean.
        ours_minus_best: Paired difference over seeds.
        interval_over_images: 95 % interval of the same difference, both as means over seeds, over
            the report split's images, by the program's bootstrap.
        share_of_samples: Share of `cost` after which ours stays at or above the best peer's final
            mean; None when it does not get there.
        quarter_minus_best: Paired difference over seeds between ours after a quarter of `cost` and
            the best peer after all of it; None where a seed of ours had no incumbent then.
        exhaustive_minus_best: The same difference between the schedule of the table that is best on
            the whole search split and the best peer.
    """

    mean_tokens: int
    cost: int
    best_peer: str
    ours_minus_best: Estimate
    interval_over_images: tuple[float, float]
    share_of_samples: float | None
    quarter_minus_best: Estimate | None
    exhaustive_minus_best: Estimate

    @property
    def first_or_tied(self) -> bool:
        """Whether ours has the higher mean, or the interval of the difference holds 0."""
        return self.ours_minus_best.not_below_zero

    @property
    def quarter_is_enough(self) -> bool:
        """Whether ours gets to the best peer's mean, and stays there, with that part of it."""
        return self.share_of_samples is not None and self.share_of_samples <= 1 / GOAL_SHARE

    @property
    def tied_at_a_quarter(self) -> bool:
        """Whether ours is first or tied, by the same test, with a quarter of the samples."""
        return self.quarter_minus_best is not None and self.quarter_minus_best.not_below_zero


class Optimum(Record):
    """The best of the table within a budget, by relative accuracy on the report split.

    Attributes:
        mean_tokens: The budget.
        schedules: Schedules of the table within it.
        report_best: Accuracy of the one that is best there: an upper bound.
        search_best: Accuracy of the one that is best on the search split.
    """

    mean_tokens: int
    schedules: int
    report_best: float
    search_best: float


class Summary(Record):
    """The whole benchmark.

    Attributes:
        measured_on: Model and benchmark, in words.
        search_samples: Samples of the search split.
        report_samples: Samples of the report split.
        ours: Name of our strategy.
        seeds: Seeds of each cell.
        optima: The best of the table, by budget.
        results: All strategies at all budgets and costs.
        verdicts: Ours against the best peer; empty when ours was not run.
        seconds: Time of all cells together.
        versions: Versions of the libraries that decide results.
    """

    measured_on: str
    search_samples: int
    report_samples: int
    ours: str
    seeds: int
    optima: tuple[Optimum, ...]
    results: tuple[Result, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    versions: dict[str, str]


def read_summary(path: Path) -> Summary:
    """Read what `search_quality.py` wrote.

    Raises:
        DataError: The file is no such summary.
    """
    try:
        return Summary.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} is no summary of this benchmark ({error})") from error
