"""The figures that a run leaves in its study's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studies.figure_data import pareto_figure
from studies.figure_style import Width, style, wrapped
from studies.plots.files import Format, save_figure
from studies.plots.pareto import comparison_and_search, pareto
from studies.plots.staircase import staircase
from studies.records import TrialRecord
from studies.results import BudgetResult

_FORMATS: tuple[Format, ...] = ("pdf", "png")


def write_job_figures(
    results: Sequence[BudgetResult], records: Sequence[TrialRecord], folder: Path
) -> list[Path]:
    """Write the Pareto figure, ``pareto.pdf``, and the staircases, ``schedules.pdf``.

    With one result, where all schedules cost the same, they stand side by side, and beside them the
    search's own trials.

    Args:
        results: One result per budget.
        records: The trials of all budgets; those of a single result are shown.
        folder: Where to write.

    Returns:
        The files written: a vector PDF with embedded fonts and a PNG of each.

    Raises:
        StudyError: There is no result, or a file cannot be written.
    """
    width: Width = "column" if len(results) == 1 else "page"
    with style():
        if len(results) > 1:
            front = pareto(results, "column")
        else:
            (result,) = results  # of a study that may have other budgets, without results yet
            trials = [record for record in records if record.budget == result.budget]
            front = comparison_and_search(results, trials)
        title = pareto_figure(results).title  # in a paper the caption says it
        front.suptitle(wrapped(title, front.get_figwidth()), fontsize="medium")
        written = save_figure(front, folder / "pareto", _FORMATS)
        return written + save_figure(staircase(results, width), folder / "schedules", _FORMATS)
