"""A study's results as a table in the papers' layout: LaTeX with booktabs, Markdown, BibTeX.

Methods are rows, tasks and relative accuracy columns, rows are grouped by budget, and the best of
each group is bold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pruners.errors import StudyError
from space.budgets import budget_label
from studies.bibliography import REFERENCES, bibtex
from studies.figure_data import label
from studies.files import make_folder, write_text
from studies.latex import escaped
from studies.results import DENSE, FAR, BudgetResult, ScheduleResult

TableFormat = Literal["latex", "markdown", "bibtex"]

_FILES: dict[TableFormat, str] = {
    "latex": "table.tex",
    "markdown": "table.md",
    "bibtex": "references.bib",
}

_NOT_DIFFERENT = "†"
_FLATTERED = "*"
_MOST_IN_COLUMN = 6
"""Columns of a table that has room in one column of a two-column paper."""


@dataclass(frozen=True)
class Row:
    """One schedule at one budget.

    Attributes:
        schedule: The schedule's name in results.
        costs: Mean visual tokens and TFLOPs.
        values: Accuracy on each task and relative accuracy, in percent, as they are printed.
        best: Which of the values are the group's best, as printed.
        interval: 95 % interval of the relative accuracy, as printed; empty for dense.
        marks: What the caption explains: a dagger, an asterisk.
    """

    schedule: str
    costs: tuple[str, ...]
    values: tuple[str, ...]
    best: tuple[bool, ...]
    interval: str
    marks: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A table.

    Attributes:
        tasks: Names of the tasks, as columns.
        dense: The model without pruning.
        groups: The rows of each budget, by the budget.
        caption: What was measured, and what marks mean.
    """

    tasks: tuple[str, ...]
    dense: Row
    groups: dict[str, tuple[Row, ...]]
    caption: str

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        tasks = [task.replace("_", " ") for task in self.tasks]
        return ["Method", "Tokens", "TFLOPs", *tasks, "Rel. acc. (%)"]

    @property
    def schedules(self) -> list[str]:
        """Names of the schedules, each once."""
        rows = [row for group in self.groups.values() for row in group]
        return list(dict.fromkeys(row.schedule for row in rows))


def paper_table(results: Sequence[BudgetResult]) -> PaperTable:
    """Collect what the table holds.

    Args:
        results: One result per budget, of one study.

    Returns:
        The table.

    Raises:
        StudyError: There is no result.
    """
    if not results:
        raise StudyError("a table needs the result of at least one budget; none is reported yet")
    dense = results[0].schedule(DENSE)
    tasks = tuple(dense.evidence.tasks)
    groups = {result.budget: _group(result, tasks) for result in results}
    marks = {mark for group in groups.values() for row in group for mark in row.marks}
    return PaperTable(
        tasks=tasks,
        dense=Row(DENSE, _costs(dense), _values(dense, tasks), (False,) * (len(tasks) + 1), ""),
        groups=groups,
        caption=_caption(results[0], marks),
    )


def latex_table(table: PaperTable) -> str:
    """Write a table in LaTeX.

    Args:
        table: The table.

    Returns:
        A ``table`` environment, ``table*`` where it needs both columns; made smaller only where it
        would be too wide.
    """
    header = table.header
    environment = "table" if len(header) <= _MOST_IN_COLUMN else "table*"
    body = [_latex_row(map(escaped, header)), r"\midrule", _latex_cells(table.dense)]
    for budget, rows in table.groups.items():
        name = escaped(budget_label(budget))
        title = rf"\multicolumn{{{len(header)}}}{{c}}{{\textit{{{name}}}}} \\"
        body += [r"\midrule", title, r"\midrule", *map(_latex_cells, rows)]
    lines = [
        r"% Needs \usepackage{booktabs} and \usepackage{graphicx}.",
        rf"\begin{{{environment}}}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{_latex_marks(escaped(table.caption))}}}",
        r"  \label{tab:pruning}\smallskip",
        r"  \sbox0{%",
        rf"    \begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"      \toprule",
        *(f"      {line}" for line in body),
        r"      \bottomrule",
        r"    \end{tabular}}%",
        r"  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def markdown_table(table: PaperTable) -> str:
    """Write a table in Markdown.

    Args:
        table: The table.

    Returns:
        The table, and its caption below it.
    """
    header = table.header
    empty = [""] * (len(header) - 1)
    rows = [header, ["---", *["---:"] * len(empty)], _markdown_cells(table.dense)]
    for budget, group in table.groups.items():
        rows += [[f"*{budget_label(budget)}*", *empty], *map(_markdown_cells, group)]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([*lines, "", table.caption.replace("*", r"\*")]) + "\n"


def table_text(results: Sequence[BudgetResult], form: TableFormat) -> str:
    """Write results in one of the formats.

    Args:
        results: One result per budget, of one study.
        form: ``"latex"`` or ``"markdown"``, or ``"bibtex"`` for the methods in the table.

    Returns:
        The text.

    Raises:
        StudyError: There is no result.
    """
    table = paper_table(results)
    if form == "latex":
        return latex_table(table)
    return markdown_table(table) if form == "markdown" else bibtex(table.schedules)


def write_tables(results: Sequence[BudgetResult], folder: Path) -> list[Path]:
    """Write ``table.tex``, ``table.md`` and ``references.bib``.

    Args:
        results: One result per budget, of one study.
        folder: Where to write; created when missing.

    Returns:
        The files written.

    Raises:
        StudyError: There is no result, or a file cannot be written.
    """
    contents = {folder / name: table_text(results, form) for form, name in _FILES.items()}
    make_folder(folder)
    for path, content in contents.items():
        write_text(path, content)
    return list(contents)


def _group(result: BudgetResult, tasks: tuple[str, ...]) -> tuple[Row, ...]:
    schedules = [schedule for schedule in result.schedules if schedule.name != DENSE]
    values = [_values(schedule, tasks) for schedule in schedules]
    best = [max(map(float, column)) for column in zip(*values, strict=True)]
    same = {each.other for each in result.comparisons if not each.significant}
    return tuple(
        Row(
            schedule=schedule.name,
            costs=_costs(schedule),
            values=row,
            # Compared as printed: what looks the same is bold alike.
            best=tuple(float(value) == most for value, most in zip(row, best, strict=True)),
            interval="[{:.1f}, {:.1f}]".format(
                *(100 * end for end in schedule.evidence.interval_95)
            ),
            marks=(_NOT_DIFFERENT if schedule.name in same else "")
            + (_FLATTERED if result.is_flattered(schedule) else ""),
        )
        for schedule, row in zip(schedules, values, strict=True)
    )


def _costs(schedule: ScheduleResult) -> tuple[str, str]:
    return f"{schedule.mean_visual_tokens:.1f}", f"{schedule.tflops:.2f}"


def _values(schedule: ScheduleResult, tasks: tuple[str, ...]) -> tuple[str, ...]:
    evidence = schedule.evidence
    percent = [evidence.tasks[task] for task in tasks] + [evidence.relative_accuracy]
    return tuple(f"{100 * value:.1f}" for value in percent)


def _caption(result: BudgetResult, marks: set[str]) -> str:
    text = (
        f"Accuracy by task (%), and relative accuracy: its mean over tasks as a share of the dense "
        f"model's, with 95 % bootstrap intervals over images. Measured on {result.measured_on}, "
        f"{result.samples} {result.split} samples; tokens (mean over decoder layers) and TFLOPs of "
        f"a prefill are those of {result.priced_for}. Best at each budget in bold."
    )
    if _NOT_DIFFERENT in marks:
        text += f" {_NOT_DIFFERENT} Not significantly different from the searched schedule."
    if _FLATTERED in marks:
        text += (
            f" {_FLATTERED} Measured with over {FAR:g} times the share of tokens that it is "
            "priced for."
        )
    return text


def _latex_cells(row: Row) -> str:
    cite = rf"~\cite{{{row.schedule}}}" if row.schedule in REFERENCES else ""
    values = [
        rf"\textbf{{{value}}}" if best else value
        for value, best in zip(row.values, row.best, strict=True)
    ]
    values[-1] = _latex_marks(" ".join(filter(None, [values[-1] + row.marks, row.interval])))
    return _latex_row([escaped(label(row.schedule)) + cite, *row.costs, *values])


def _latex_row(cells: Sequence[str] | map[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_marks(text: str) -> str:
    return text.replace(_NOT_DIFFERENT, r"$^\dagger$").replace(_FLATTERED, "$^*$")


def _markdown_cells(row: Row) -> list[str]:
    values = [
        f"**{value}**" if best else value for value, best in zip(row.values, row.best, strict=True)
    ]
    marks = row.marks.replace(_FLATTERED, rf"\{_FLATTERED}")
    values[-1] = " ".join(filter(None, [values[-1] + marks, row.interval]))
    return [label(row.schedule), *row.costs, *values]
