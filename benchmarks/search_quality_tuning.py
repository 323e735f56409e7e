"""How many samples per trial each strategy does best with, found without the report split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError
from records import Record
from rich import box
from rich.console import Console
from rich.table import Table
from search_quality_estimates import estimate
from search_quality_records import Estimate, ValuedCell
from search_quality_table import percent

from pruners.errors import DataError
from studies.files import write_text

CHOICES = (25, 50, 100, 200, 400)
"""Samples per trial that are tried; in halves of the split, 400 means all."""

FEWEST_TRIALS, MOST_TRIALS = 2, 100
"""Trials that a choice must allow, and that it may allow."""

REFERENCE = "random"
"""Strategy whose samples per trial those have that were not tuned."""

DECIDES_ITSELF = frozenset({"adaptive", "fitprune"})
"""Strategies that decide on how many samples each trial is measured."""

TUNING_SEEDS = 1000
"""First seed of the tuning; those of the benchmark itself begin at 0."""


class Choice(Record):
    """What a number of samples per trial leads to.

    Attributes:
        strategy: Name of the strategy.
        cost: Samples per budget.
        samples_per_trial: Samples of each trial; None where the strategy decides.
        relative_accuracy: Of the incumbents on the held-out halves, mean over budgets.
        best: Whether it is the best of the strategy at this cost.
    """

    strategy: str
    cost: int
    samples_per_trial: int | None
    relative_accuracy: Estimate
    best: bool


_CHOICES = TypeAdapter(tuple[Choice, ...])


def choices_at(strategy: str, cost: int) -> tuple[int | None, ...]:
    """List the samples per trial that are tried for a strategy at a cost."""
    if strategy in DECIDES_ITSELF:
        return (None,)
    return tuple(each for each in CHOICES if FEWEST_TRIALS <= cost / each <= MOST_TRIALS)


def best_choices(cells: Sequence[ValuedCell]) -> tuple[Choice, ...]:
    """Compare the choices of each strategy at each cost.

    Args:
        cells: Cells of the tuning, the same seeds for every choice.

    Returns:
        All choices, of which one per strategy and cost is the best.
    """
    groups: dict[tuple[str, int], dict[int | None, list[float]]] = {}
    for cell in cells:
        choices = groups.setdefault((cell.strategy, cell.cost), {})
        mean = float(np.mean([run.report_accuracy for run in cell.budgets]))
        choices.setdefault(cell.samples_per_trial, []).append(mean)
    return tuple(
        Choice(
            strategy=strategy,
            cost=cost,
            samples_per_trial=samples,
            relative_accuracy=estimate(values),
            best=samples == max(choices, key=lambda each: float(np.mean(choices[each]))),
        )
        for (strategy, cost), choices in groups.items()
        for samples, values in choices.items()
    )


def write_settings(choices: Sequence[Choice], path: Path) -> None:
    """Keep choices; those of strategies and costs that were not tried now stay as they are."""
    tried = {(choice.strategy, choice.cost) for choice in choices}
    kept = [choice for choice in _read(path) if (choice.strategy, choice.cost) not in tried]
    merged = sorted([*kept, *choices], key=lambda each: (each.strategy, each.cost))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _CHOICES.dump_json(tuple(merged), indent=1).decode() + "\n")


def read_settings(path: Path) -> Mapping[str, Mapping[int, int | None]]:
    """Read the best samples per trial, by strategy and cost; none where nothing was tuned."""
    best: dict[str, dict[int, int | None]] = {}
    for choice in _read(path):
        if choice.best:
            best.setdefault(choice.strategy, {})[choice.cost] = choice.samples_per_trial
    return best


def samples_per_trial(
    chosen: Mapping[str, Mapping[int, int | None]], strategy: str, cost: int
) -> int | None:
    """Return the samples of a trial that a strategy is run with.

    Args:
        chosen: What `read_settings` returned.
        strategy: The strategy.
        cost: Samples per budget.

    Returns:
        Its best; what serves random search best where it was not tuned; None where it decides for
        itself, or nothing was tuned.
    """
    if strategy in DECIDES_ITSELF:
        return None
    return chosen.get(strategy, {}).get(cost, chosen.get(REFERENCE, {}).get(cost))


def print_choices(choices: Sequence[Choice], console: Console) -> None:
    """Print how the choices do."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title="Relative accuracy on held-out halves of the search split, mean over budgets, %",
    )
    table.add_column("Strategy")
    table.add_column("Samples", justify="right")
    table.add_column("per trial", justify="right")
    table.add_column("accuracy", justify="right")
    for choice in choices:
        table.add_row(
            choice.strategy,
            f"{choice.cost:,}",
            str(choice.samples_per_trial or ""),
            percent(choice.relative_accuracy),
            style="bold" if choice.best else "",
        )
    console.print(table)


def _read(path: Path) -> tuple[Choice, ...]:
    if not path.exists():
        return ()
    try:
        return _CHOICES.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path} holds no settings of this benchmark ({error})") from error
