"""The closing table of a study, on the terminal and as ``report.md``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from space.budgets import budget_label
from studies.figure_data import label
from studies.files import write_text
from studies.results import DENSE, FAR, SEARCHED, BudgetResult, Comparison, ScheduleResult
from studies.wording import counted

_COLUMNS = (
    "Budget",
    "Schedule",
    "TFLOPs",
    "Mean tokens",
    "Relative accuracy, %",
    "Searched minus this, %",
)


def print_report(results: Sequence[BudgetResult], console: Console) -> None:
    """Print the closing table.

    Args:
        results: One result per budget.
        console: Where to print.
    """
    if not results:
        return
    title = Text(_caption(results[0]), style="table.title")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in _COLUMNS[:2] else "right")
    for result in results:
        for row in _rows(result):
            style = "bold" if row[1] == label(SEARCHED) else ""
            table.add_row(*(Text(cell) for cell in row), style=style)
        table.add_section()
    console.print(table)
    for line in _verdicts(results):
        console.print(Text(line))


def write_report(results: Sequence[BudgetResult], path: Path) -> None:
    """Write the closing table as Markdown.

    Args:
        results: One result per budget.
        path: The file to write or replace, usually ``report.md``.

    Raises:
        StudyError: The file cannot be written.
    """
    lines = ["# Searched pruning schedules", "", *markdown_report(results)]
    write_text(path, "\n".join(lines) + "\n")


def markdown_report(results: Sequence[BudgetResult]) -> list[str]:
    """Write the closing table as lines of Markdown, without a heading.

    Args:
        results: One result per budget.

    Returns:
        What was measured, the table, and a verdict per budget; nothing without results.
    """
    if not results:
        return []
    return [
        _caption(results[0]),
        "",
        _markdown_row(_COLUMNS),
        _markdown_row(["---", "---", "---:", "---:", "---:", "---:"]),
        *(_markdown_row(row) for result in results for row in _rows(result)),
        "",
        *("- " + line.replace("*", r"\*") for line in _verdicts(results)),
    ]


def verdict(comparison: Comparison) -> str:
    """Say what a comparison shows, and that it shows nothing where it does not.

    Args:
        comparison: The searched schedule against another one.

    Returns:
        ``"better than ..."``, ``"worse than ..."``, or ``"not significantly different from ..."``.
    """
    return f"{_relation(comparison)} {label(comparison.other)}"


def verdict_on_all(comparisons: Sequence[Comparison]) -> str:
    """Say what several comparisons show, those that show the same together.

    Args:
        comparisons: The searched schedule against other ones.

    Returns:
        For example ``"better than VisionDrop, DeSAP"``.
    """
    others: dict[str, list[str]] = {}
    for comparison in comparisons:
        others.setdefault(_relation(comparison), []).append(label(comparison.other))
    said = "; ".join(f"{relation} {', '.join(names)}" for relation, names in others.items())
    return said or "compared with none"


def _relation(comparison: Comparison) -> str:
    if not comparison.significant:
        return "not significantly different from"
    return "better than" if comparison.difference > 0 else "worse than"


def _caption(result: BudgetResult) -> str:
    return (
        f"Accuracy measured on {result.measured_on}, {result.samples} {result.split} samples; "
        f"cost of {result.priced_for}, convention total. "
        "In brackets: 95 % bootstrap intervals over images, paired; significance is "
        "Holm-corrected over each budget's comparisons."
    )


def _rows(result: BudgetResult) -> list[list[str]]:
    comparisons = {comparison.other: comparison for comparison in result.comparisons}
    return [
        [
            budget_label(result.budget) if schedule.name == SEARCHED else "",
            label(schedule.name),
            f"{schedule.tflops:.3f}",
            f"{schedule.mean_visual_tokens:.1f}",
            _accuracy(schedule) + ("*" if result.is_flattered(schedule) else ""),
            _difference(comparisons[schedule.name]) if schedule.name in comparisons else "",
        ]
        for schedule in result.schedules
    ]


def _accuracy(schedule: ScheduleResult) -> str:
    evidence = schedule.evidence
    if schedule.name == DENSE:
        return f"100 = {100 * evidence.accuracy:.1f} correct"
    low, high = evidence.interval_95
    return f"{100 * evidence.relative_accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _difference(comparison: Comparison) -> str:
    low, high = comparison.interval_95
    text = f"{100 * comparison.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text if comparison.significant else f"{text}, not significant"


def _verdicts(results: Sequence[BudgetResult]) -> list[str]:
    """One line per budget; dense is left out, for being cheaper is what pruning is for.

    A last one explains the asterisk where there is one.
    """
    lines = []
    for result in results:
        against = [comparison for comparison in result.comparisons if comparison.other != DENSE]
        lines.append(
            f"{budget_label(result.budget)}: the searched schedule is {verdict_on_all(against)} "
            f"({counted(result.trials, 'trial')}, {counted(result.evaluations, 'sample')} scored, "
            f"{result.seconds:.0f} s in trials)."
        )
    if any(result.is_flattered(schedule) for result in results for schedule in result.schedules):
        lines.append(
            "* Flattered: the measured model's layers or whole tokens cannot follow it, so that it "
            f"was measured with over {FAR:g} times the share of tokens that it is priced for."
        )
    return lines


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
