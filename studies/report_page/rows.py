"""What the page's tables show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from space.budgets import budget_label
from studies.figure_data import label
from studies.reading import StoredBudget, StoredStudy
from studies.report import verdict_on_all
from studies.report_page.charts import StairChart, stair_chart, style_of
from studies.report_page.schedules import ScheduleView, interval, schedule_view
from studies.results import DENSE, SEARCHED, BudgetResult, Comparison
from studies.wording import counted


@dataclass(frozen=True)
class ResultRow:
    """A schedule in the table of results.

    Attributes:
        label: What it is called.
        style: Number of its colour; None for the grey of many.
        searched: Whether it is the searched one.
        tflops: Cost on the target.
        share: Cost as a share of dense.
        tokens: Mean visual tokens.
        accuracy: Relative accuracy with its interval.
        difference: The searched schedule minus this one, with its interval; empty for itself.
        verdict: What the searched schedule is beside this one, in words.
        flattered: Whether it keeps far more tokens where it was measured than it is priced for.
        tasks: Accuracy by task, in percent.
    """

    label: str
    style: int | None
    searched: bool
    tflops: str
    share: str
    tokens: str
    accuracy: str
    difference: str
    verdict: str
    flattered: bool
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class BudgetView:
    """What the page says of one budget.

    Attributes:
        budget: The budget, as people read it.
        headline: What was found, in a sentence; what is missing where nothing was.
        tasks: Tasks, in the order of `ResultRow.tasks`.
        rows: Its rows in the table of results; none where there is no result yet.
        stairs: Its staircase; None where there is no result yet.
        schedule: Its schedule; None where there is none yet.
    """

    budget: str
    headline: str
    tasks: tuple[str, ...]
    rows: tuple[ResultRow, ...]
    stairs: StairChart | None
    schedule: ScheduleView | None


def budget_view(stored: StoredBudget, names: Sequence[str]) -> BudgetView:
    """Lay out what is stored of one budget.

    Args:
        stored: The budget.
        names: All schedules of the page.

    Returns:
        The view.
    """
    result = stored.result
    return BudgetView(
        budget=budget_label(stored.budget),
        headline=_headline(stored),
        tasks=tuple(_tasks(result)) if result else (),
        rows=tuple(_result_rows(result, names)) if result else (),
        stairs=stair_chart(result, names) if result else None,
        schedule=schedule_view(stored),
    )


def identity_rows(study: StoredStudy) -> list[tuple[str, str]]:
    """List what the study is a study of.

    Args:
        study: The study.

    Returns:
        Names and values.
    """
    identity = study.identity
    splits = ", ".join(
        f"{name} {split.samples} (fingerprint {split.fingerprint[:12]})"
        for name, split in identity.splits.items()
    )
    return [
        ("Study", study.name),
        ("Identity", identity.fingerprint),
        ("Measured model", identity.model),
        ("Fingerprint of the model", identity.model_fingerprint),
        ("Priced for", identity.shape.name),
        ("Tasks", ", ".join(identity.tasks)),
        ("Samples by split", splits),
        ("Seed", str(identity.seed)),
        ("Versions", ", ".join(f"{name} {found}" for name, found in identity.versions.items())),
    ]


def _headline(stored: StoredBudget) -> str:
    result = stored.result
    if result is None:
        finished = sum(trial.state in ("complete", "pruned") for trial in stored.trials)
        found = "the best schedule so far is not confirmed" if stored.schedule else "no schedule"
        return f"{counted(finished, 'trial')} so far, no result yet; {found}."
    own, dense = result.schedule(SEARCHED), result.schedule(DENSE)
    against = [one for one in result.comparisons if one.other != DENSE]
    said = f"; {verdict_on_all(against)}" if against else ""
    return (
        f"{interval(own.evidence)} % of the dense model's accuracy at "
        f"{100 * own.tflops / dense.tflops:.0f} % of its cost{said}."
    )


def _tasks(result: BudgetResult) -> list[str]:
    return list(result.schedules[0].evidence.tasks)


def _result_rows(result: BudgetResult, names: Sequence[str]) -> Iterator[ResultRow]:
    comparisons = {comparison.other: comparison for comparison in result.comparisons}
    dense_tflops = result.schedule(DENSE).tflops
    for schedule in result.schedules:
        comparison = comparisons.get(schedule.name)
        evidence = schedule.evidence
        yield ResultRow(
            label=label(schedule.name),
            style=style_of(schedule.name, names),
            searched=schedule.name == SEARCHED,
            tflops=f"{schedule.tflops:.3f}",
            share=f"{100 * schedule.tflops / dense_tflops:.1f}",
            tokens=f"{schedule.mean_visual_tokens:.1f}",
            accuracy=f"100 = {100 * evidence.accuracy:.1f} correct"
            if schedule.name == DENSE
            else interval(evidence),
            difference=_difference(comparison) if comparison else "",
            verdict=_verdict(comparison) if comparison else "",
            flattered=result.is_flattered(schedule),
            tasks=tuple(f"{100 * evidence.tasks[task]:.1f}" for task in _tasks(result)),
        )


def _difference(comparison: Comparison) -> str:
    low, high = comparison.interval_95
    return f"{100 * comparison.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _verdict(comparison: Comparison) -> str:
    if not comparison.significant:
        return "not significantly different"
    return "better" if comparison.difference > 0 else "worse"
