"""The tables that `search_quality.py` prints and that docs/search-quality.md shows."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from search_quality_records import Estimate, Result, Summary, Verdict


def percent(estimate: Estimate) -> str:
    """Spell an estimate in percent, such as ``74.5 [73.9, 75.1]``."""
    low, high = estimate.interval_95
    return f"{100 * estimate.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def points(estimate: Estimate) -> str:
    """Spell a difference in points, such as ``+1.2 [+0.4, +2.0]``."""
    return f"{100 * estimate.mean:+.1f} {span(estimate.interval_95)}"


def span(interval: tuple[float, float]) -> str:
    """Spell an interval in points, such as ``[+0.4, +2.0]``."""
    return "[" + ", ".join(f"{100 * end:+.1f}" for end in interval) + "]"


def exhaustive(summary: Summary) -> str:
    """Say how well the best of all schedules on the search split would do."""
    cases = [verdict.exhaustive_minus_best.not_below_zero for verdict in summary.verdicts]
    return (
        "The schedule that is best on the whole search split would be first or tied in "
        f"{sum(cases)} of {len(cases)}."
    )


def standing(first_or_tied: bool) -> str:
    """Spell whether ours is first or tied."""
    return "first or tied" if first_or_tied else "behind"


def quarter(verdict: Verdict) -> str:
    """Spell how ours compares with a quarter of the samples."""
    if verdict.quarter_minus_best is None:
        return "no schedule yet"
    return points(verdict.quarter_minus_best)


def share(value: float | None) -> str:
    """Spell the share of samples that ours needs."""
    return "not reached" if value is None else f"{value:.0%}"


def print_summary(summary: Summary, console: Console) -> None:
    """Print one table per cost, then ours against the best peers."""
    costs = sorted({result.cost for result in summary.results})
    for cost in costs:
        console.print(_cost_table(summary, cost))
    if not summary.verdicts:
        return
    console.print(_verdict_table(summary.verdicts))
    first = sum(verdict.first_or_tied for verdict in summary.verdicts)
    reached = sum(verdict.quarter_is_enough for verdict in summary.verdicts)
    early = sum(verdict.tied_at_a_quarter for verdict in summary.verdicts)
    console.print(
        Text(
            f"{summary.ours} is first or tied in {first} of {len(summary.verdicts)} cases, and "
            f"needs at most a quarter of the best peer's samples in {reached}. With that quarter "
            f"it is first or tied in {early}. {exhaustive(summary)}"
        )
    )


def _cost_table(summary: Summary, cost: int) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title=(
            f"{cost:,} samples per budget, {summary.seeds} seeds: relative accuracy on the report "
            "split, % (95 % interval over seeds)"
        ),
    )
    table.add_column("Strategy")
    table.add_column("per trial", justify="right")
    for optimum in summary.optima:
        table.add_column(f"{optimum.mean_tokens} tokens", justify="right")
    rows: dict[str, list[Result]] = {}
    for result in summary.results:
        if result.cost == cost:
            rows.setdefault(result.strategy, []).append(result)
    for name, results in sorted(rows.items(), key=lambda row: -_mean(row[1])):
        per_trial = results[0].samples_per_trial
        table.add_row(
            name,
            str(per_trial or ""),
            *(percent(result.relative_accuracy) for result in results),
            style="bold" if name == summary.ours else "",
        )
    table.add_section()
    for label, values in (
        ("best on search", [optimum.search_best for optimum in summary.optima]),
        ("best on report", [optimum.report_best for optimum in summary.optima]),
    ):
        table.add_row(label, "", *(f"{100 * value:.1f}" for value in values))
    return table


def _verdict_table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title="Ours against the best peer")
    for header, justify in (
        ("Tokens", "right"),
        ("Samples", "right"),
        ("Best peer", "left"),
        ("ours minus it", "right"),
        ("over images", "right"),
        ("", "left"),
        ("share of samples", "right"),
        ("quarter", "right"),
    ):
        table.add_column(header, justify=justify)
    for verdict in verdicts:
        table.add_row(
            str(verdict.mean_tokens),
            f"{verdict.cost:,}",
            verdict.best_peer,
            points(verdict.ours_minus_best),
            span(verdict.interval_over_images),
            standing(verdict.first_or_tied),
            share(verdict.share_of_samples),
            quarter(verdict),
        )
    return table


def _mean(results: Sequence[Result]) -> float:
    return sum(result.relative_accuracy.mean for result in results) / len(results)
