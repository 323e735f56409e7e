"""The tables of `methods.py`: on the terminal, and as Markdown for the documentation."""

from __future__ import annotations

from typing import Literal

from methods_summary import BudgetSummary, MethodResult, Summary
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.results import FAR

_COLUMNS = ("Method", "% of dense", "Tokens", "measured", "TFLOPs", "TMACs")


def print_summary(summary: Summary, console: Console) -> None:
    """Print a table per budget, best methods first, and which methods do not meet it."""
    console.print(
        Text(
            f"Accuracy measured on {summary.measured_on}, {summary.samples} report samples, dense "
            f"{100 * summary.dense_accuracy:.1f} % correct; in brackets 95 % intervals over "
            f"images. Cost of {summary.priced_for}, and its share of dense: TFLOPs under "
            f"convention total (dense {summary.dense_tflops:.2f}), TMACs under llm-macs (dense "
            f"{summary.dense_llm_macs:.2f}). Tokens: mean over its decoder layers, their share, "
            f"and their share on the measured model (*: over {FAR:g} times as large)."
        )
    )
    for budget in summary.budgets:
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            title_justify="left",
            title=f"{budget.budget}, as VisionDrop at {budget.tokens} tokens: {_share(budget)}",
        )
        for column in _COLUMNS:
            justify: Literal["left", "right"] = "left" if column == "Method" else "right"
            table.add_column(column, justify=justify, no_wrap=True)
        for method in budget.methods:
            table.add_row(*map(Text, _cells(method)), style="dim" if method.control else "")
        console.print(table)
        for method in budget.methods:
            if method.spread is not None:
                low, high = (100 * value for value in (min(method.per_seed), max(method.per_seed)))
                console.print(
                    Text(
                        f"{method.label}: mean of {len(method.per_seed)} draws between {low:.1f} "
                        f"and {high:.1f}, standard deviation {100 * method.spread:.1f}."
                    )
                )
        for name, reason in budget.not_met.items():
            console.print(Text(f"{name} cannot meet this budget ({reason})."))


def markdown(summary: Summary) -> str:
    """Return relative accuracies as a Markdown table: methods in rows, budgets in columns.

    Args:
        summary: The benchmark's results.

    Returns:
        The table, methods ordered by their mean over the budgets that all meet.
    """
    results = {
        (method.name, budget.tokens): method
        for budget in summary.budgets
        for method in budget.methods
    }
    labels = {name: method.label for (name, _), method in results.items()}
    controls = {name for (name, _), method in results.items() if method.control}
    shared = [
        budget.tokens
        for budget in summary.budgets
        if all((name, budget.tokens) in results for name in labels)
    ]

    def mean(name: str) -> float:
        return sum(results[name, tokens].relative_accuracy for tokens in shared)

    head = ["method", *(_heading(budget) for budget in summary.budgets)]
    lines = [head, ["---", *["---:"] * len(summary.budgets)]]
    for name in sorted(labels, key=mean, reverse=True):
        cells = [
            accuracy(results[name, budget.tokens]) + _mark(results[name, budget.tokens])
            if (name, budget.tokens) in results
            else "not met"
            for budget in summary.budgets
        ]
        lines.append([f"*{labels[name]}*" if name in controls else labels[name], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracy(method: MethodResult) -> str:
    """Spell out a relative accuracy with its interval, in percent."""
    low, high = method.interval_95
    return f"{100 * method.relative_accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _cells(method: MethodResult) -> list[str]:
    return [
        method.label,
        accuracy(method),
        f"{method.mean_visual_tokens:.1f} {method.share_of_tokens:.0%}",
        f"{method.measured_share_of_tokens:.0%}{_mark(method)}",
        f"{method.tflops:.3f} {method.share_of_dense:.0%}",
        f"{method.llm_macs:.3f} {method.llm_share_of_dense:.0%}",
    ]


def _mark(method: MethodResult) -> str:
    return "*" if method.flattered else ""


def _share(budget: BudgetSummary) -> str:
    return (
        f"{budget.share_of_dense:.1%} of dense under total, {budget.llm_share_of_dense:.1%} under "
        "llm-macs"
    )


def _heading(budget: BudgetSummary) -> str:
    return f"{100 * budget.llm_share_of_dense:.1f} % ({budget.tflops:g} TFLOPs)"
