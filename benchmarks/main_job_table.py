"""The table that `main_job.py` prints."""

from __future__ import annotations

import numpy as np
from main_job_summary import BudgetSummary, Summary
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.figure_data import label
from studies.report import verdict
from studies.results import SEARCHED


def print_summary(summary: Summary, console: Console) -> None:
    """Print one table, and below it where the search wins and where it does not."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title=(
            f"Accuracy measured on {summary.measured_on}, {summary.report_samples} report samples, "
            f"dense {100 * summary.dense_accuracy:.1f} % correct; cost of {summary.priced_for}. "
            f"Means over {summary.seeds} seeds of {summary.trials} trials; in brackets 95 % "
            "intervals over images."
        ),
    )
    headers = (
        "Budget", "Schedule", "TFLOPs", "Relative accuracy, %", "over seeds",
        "Searched minus this, %", "seeds won", "samples scored", "seconds",
    )  # fmt: skip
    for header in headers:
        table.add_column(header, justify="left" if header in headers[:2] else "right")
    for budget in summary.budgets:
        for row in _rows(budget, summary.seeds):
            table.add_row(*map(Text, row), style="bold" if row[1] == label(SEARCHED) else "")
        table.add_section()
    console.print(table)
    for budget in summary.budgets:
        said = ", ".join(verdict(comparison) for comparison in budget.comparisons)
        console.print(Text(f"{budget.budget}: the searched schedule is {said}."))
    lost = [
        f"{label(comparison.other)} at {budget.budget}"
        for budget in summary.budgets
        for comparison in budget.comparisons
        if not (comparison.significant and comparison.difference > 0)
    ]
    console.print(
        Text(f"The search does not win against {', '.join(lost) if lost else 'none: it wins all'}.")
    )


def _rows(budget: BudgetSummary, seeds: int) -> list[list[str]]:
    comparisons = {comparison.other: comparison for comparison in budget.comparisons}
    rows = []
    for method in budget.methods:
        low, high = method.interval_95
        comparison = comparisons.get(method.name)
        spread = f"{100 * min(method.per_seed):.1f} to {100 * max(method.per_seed):.1f}"
        difference = ""
        if comparison is not None:
            below, above = comparison.interval_95
            difference = (
                f"{100 * comparison.difference:+.1f} [{100 * below:+.1f}, {100 * above:+.1f}]"
            )
            difference += "" if comparison.significant else ", not significant"
        rows.append(
            [
                f"{budget.budget} ({budget.share_of_dense:.0%} of dense)"
                if method.name == SEARCHED
                else "",
                label(method.name),
                f"{method.tflops:.3f}",
                f"{100 * method.relative_accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                spread if method.spread is not None else "",
                difference,
                f"{budget.wins[method.name]}/{seeds}" if comparison is not None else "",
                f"{np.mean(method.evaluations):.0f}" if method.evaluations else "",
                f"{np.mean(method.seconds):.0f}" if method.seconds else "",
            ]
        )
    return rows
