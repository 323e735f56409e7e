"""All figures of a study at once, with the points that they show and captions for a paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from space.budgets import budget_label
from studies.figure_style import Width, inches, style
from studies.file_names import budget_slug
from studies.files import make_folder, write_text
from studies.kept_tokens import Gallery
from studies.latex import escaped
from studies.pareto import pareto_points
from studies.plots.anytime import anytime, anytime_curves, anytime_points
from studies.plots.files import FORMATS, Format, check_formats, save_figure, save_points
from studies.plots.hypervolume import draw_hypervolume, hypervolume_curve, hypervolume_points
from studies.plots.importance import choice_importance, draw_importance, importance_points
from studies.plots.incumbents import reported
from studies.plots.kept import draw_kept, kept_points, kept_rows
from studies.plots.pareto import comparison, pareto
from studies.plots.staircase import staircase, staircase_points
from studies.plots.tasks import draw_tasks, task_bars, task_points
from studies.reading import StoredStudy
from studies.results import SEARCHED, BudgetResult

CAPTIONS_FILE = "figures.tex"


@dataclass(frozen=True)
class PlannedFigure:
    """A figure that a study has something for.

    Attributes:
        name: Name of its files.
        caption: What it shows, as a caption in a paper would say.
        points: The points in it.
        draw: Draws it in a width.
    """

    name: str
    caption: str
    points: pd.DataFrame
    draw: Callable[[Width], Figure]


def write_figures(
    study: StoredStudy,
    folder: Path,
    formats: Sequence[Format] = FORMATS,
    width: Width = "column",
    gallery: Gallery | None = None,
) -> list[Path]:
    """Write every figure that a study has something for.

    ``pareto``: relative accuracy against cost. ``anytime``: the incumbent's accuracy by samples
    scored. ``hypervolume``: what the incumbents of all budgets dominate (two budgets or more).
    ``importance``: which choices matter (20 schedules or more). ``schedules``: visual tokens alive
    by layer. ``tasks``: accuracy by task. ``kept-BUDGET``: what is kept of sample images. Beside
    each figure stands a CSV file with its points, and ``figures.tex`` includes all of them with
    captions, where they are written as PDF or PGF.

    Args:
        study: The study; of one that is still running, figures of results have what is there.
        folder: Where to write; created when missing.
        formats: What to write figures as.
        width: ``"column"`` or ``"page"`` of a two-column paper, to be included unscaled.
        gallery: What schedules keep of sample images, where it was recorded.

    Returns:
        The files written, in the order above; none where the study has nothing to show yet.

    Raises:
        StudyError: A format or width is unknown, or a file cannot be written.
    """
    check_formats(formats)
    inches(width)
    make_folder(folder)
    written = []
    planned = list(plan_figures(study, gallery))
    for each in planned:
        with style():
            written += save_figure(each.draw(width), folder / each.name, formats)
        written.append(save_points(each.points, folder / each.name))
    if planned and {"pdf", "pgf"} & set(formats):
        captions = folder / CAPTIONS_FILE
        write_text(captions, _environments(planned, width, as_pgf="pdf" not in formats))
        written.append(captions)
    return written


def plan_figures(study: StoredStudy, gallery: Gallery | None = None) -> Iterator[PlannedFigure]:
    """Collect what each figure shows; nothing is drawn yet.

    Args:
        study: The study.
        gallery: What schedules keep of sample images, where it was recorded.

    Yields:
        The figures that the study has something for.
    """
    results = reported(study)
    if results:
        yield _front(results)
    yield from _search_figures(study)
    if results:
        yield from _schedule_figures(results)
    if gallery is not None:
        for budget in study.identity.budgets:
            if rows := kept_rows(gallery, budget, SEARCHED):
                yield PlannedFigure(
                    f"kept-{budget_slug(budget)}",
                    f"What the schedule searched at {budget_label(budget)} keeps of "
                    f"{gallery.split} images, measured on {gallery.measured_on}: number of visual "
                    "tokens alive after each stage, dropped patches faded; rings mark contextual "
                    "tokens, into which others were merged.",
                    kept_points(rows),
                    partial(draw_kept, rows),
                )


def _front(results: list[BudgetResult]) -> PlannedFigure:
    first = results[0]
    draw = pareto if len(results) > 1 else comparison
    return PlannedFigure(
        "pareto",
        f"Relative accuracy and cost of searched and published schedules, priced for "
        f"{first.priced_for}, measured on {_measured(first)}, with 95 % bootstrap intervals over "
        "images.",
        pd.DataFrame(pareto_points(results)),
        partial(draw, results),
    )


def _search_figures(study: StoredStudy) -> Iterator[PlannedFigure]:
    """Figures of the trials, which need no results."""
    if curves := anytime_curves(study):
        yield PlannedFigure(
            "anytime",
            "What the search would have answered after so many samples. Incumbents are chosen by "
            "what a linear mixed model estimates from the trials so far, and valued by what it "
            "estimates from all; open markers are what was reported of the final schedules on "
            "samples that the search never saw.",
            anytime_points(curves),
            partial(anytime, curves),
        )
    if curve := hypervolume_curve(study):
        yield PlannedFigure(
            "hypervolume",
            "Area of the plane of cost and relative accuracy that the incumbents of all budgets "
            "dominate, in percent of the area between the dense model's cost without any accuracy "
            "and its accuracy without any cost.",
            hypervolume_points(curve),
            partial(draw_hypervolume, curve),
        )
    trials = [trial for budget in study.budgets for trial in budget.trials]
    if importance := choice_importance(trials):
        yield PlannedFigure(
            "importance",
            "Permutation importance of each choice of a schedule among those that were searched: "
            "median and 95 % range over bootstrap resamples of the schedules.",
            importance_points(importance),
            partial(draw_importance, importance),
        )


def _schedule_figures(results: list[BudgetResult]) -> Iterator[PlannedFigure]:
    yield PlannedFigure(
        "schedules",
        f"Visual tokens alive in each decoder layer of {results[0].priced_for}.",
        staircase_points(results),
        partial(staircase, results),
    )
    bars = task_bars(results)
    yield PlannedFigure(
        "tasks",
        f"Accuracy by task relative to the dense model, measured on {_measured(results[0])}, with "
        "95 % bootstrap intervals over images.",
        task_points(bars),
        partial(draw_tasks, bars),
    )


def _measured(result: BudgetResult) -> str:
    return f"{result.measured_on}, {result.samples} {result.split} samples"


def _environments(planned: Sequence[PlannedFigure], width: Width, as_pgf: bool) -> str:
    """LaTeX that includes the figures, unscaled."""
    environment = "figure" if width == "column" else "figure*"
    package = "pgf" if as_pgf else "graphicx"
    lines = [rf"% Needs \usepackage{{{package}}}. Figures are to be included unscaled."]
    for each in planned:
        file = rf"\input{{{each.name}.pgf}}" if as_pgf else rf"\includegraphics{{{each.name}.pdf}}"
        lines += [
            rf"\begin{{{environment}}}",
            r"  \centering",
            f"  {file}",
            rf"  \caption{{{escaped(each.caption)}}}",
            rf"  \label{{fig:{each.name}}}",
            rf"\end{{{environment}}}",
        ]
    return "\n".join(lines) + "\n"
