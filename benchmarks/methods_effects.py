"""Whether effects that the papers report show on the embedded model.

Pairs of schedules that differ in one thing, at the budgets of `methods.py`: decoupled against plain
similarity, visual against text-guided scores, several stages against one. Then the orders of
methods in the papers, and every method against random tokens and a smaller image. All differences
are paired over the report split's samples, and reported as they come out.

    python benchmarks/methods_effects.py

prints the tables and writes ``benchmarks/results/methods_effects.json``. Scores are shared with
`methods.py` under ``runs/methods``: the same command continues after an interruption.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from methods_contrasts import CONTRASTS, Contrast
from methods_effects_records import Effects
from methods_effects_summary import Comparisons
from methods_effects_table import markdown, print_effects
from methods_orders import ORDERS
from methods_schedules import BudgetPoint, Entry, budget_points, chosen_methods, entry_at
from methods_scoring import SPLIT, all_scored
from methods_summary import write_record
from rich.console import Console

from pruners.errors import DataError, PrunetuneError
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import Shape
from search.display import Display
from search.measuring import Measurements
from search.model_choice import choose_model, make_evaluator, target_shape

RESULTS = Path(__file__).parent / "results" / "methods_effects.json"

Pairs = dict[BudgetPoint, tuple[Schedule, Schedule]]
Entries = dict[BudgetPoint, dict[str, Entry]]


def main(
    contrasts: Annotated[
        list[str] | None, typer.Option("--contrast", help="Repeat for several. Default: all.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="Methods and controls to rank. Default: all."),
    ] = None,
    tokens: Annotated[
        list[int] | None, typer.Option(help="As for methods.py; repeat for several.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most samples, for a quick run. Default: all.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    model: Annotated[str, typer.Option(help="embedded or analytic.")] = "embedded",
    work: Annotated[Path, typer.Option(help="Scores are kept here.")] = Path("runs/methods"),
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print contrasts as a Markdown table as well.")
    ] = False,
) -> None:
    """Measure what is not yet known, print the tables, write the JSON."""
    console = Console()
    display = Display(console)
    try:
        evaluator = make_evaluator(choose_model(model))
        target = target_shape(None, evaluator)
        names = chosen_methods(methods)
        points = budget_points(tokens, target)
        pairs = {
            contrast: {point: contrast.pair(point, target) for point in points}
            for contrast in chosen_contrasts(contrasts)
        }
        entries = {
            point: {name: entry_at(name, point, target) for name in names} for point in points
        }
        schedules = [dense(evaluator.shape), *all_schedules(pairs, entries)]
        with all_scored(schedules, evaluator, target, work, limit, workers, display) as kept:
            effects = compare_all(pairs, entries, target, kept)
        write_record(effects, out)
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    print_effects(effects, console)
    if as_markdown:
        display.show(markdown(effects))
    display.show(f"Written to {out}")


def chosen_contrasts(names: list[str] | None) -> list[Contrast]:
    """Return the contrasts to measure: all of them when none is named."""
    known = [contrast.name for contrast in CONTRASTS]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise DataError(
            f"there is no contrast {', '.join(unknown)}; expected some of {'; '.join(known)}"
        )
    return [contrast for contrast in CONTRASTS if not names or contrast.name in names]


def all_schedules(pairs: dict[Contrast, Pairs], entries: Entries) -> list[Schedule]:
    """Return every schedule that the effects need."""
    return [
        *(schedule for budgets in pairs.values() for pair in budgets.values() for schedule in pair),
        *(
            schedule
            for here in entries.values()
            for entry in here.values()
            for schedule in entry.schedules
        ),
    ]


def compare_all(
    pairs: dict[Contrast, Pairs], entries: Entries, target: Shape, kept: Measurements
) -> Effects:
    """Compare all schedules by their scores."""
    comparisons = Comparisons(target, kept)
    orders = [
        comparisons.order(order, here)
        for order in ORDERS
        for point, here in entries.items()
        if point.tokens == order.tokens
    ]
    return Effects(
        measured_on=kept.evaluator.measured_on,
        priced_for=target.name,
        samples=len(kept.samples(SPLIT)),
        contrasts=tuple(
            comparisons.contrast(contrast, budgets) for contrast, budgets in pairs.items()
        ),
        orders=tuple(order for order in orders if order is not None),
        controls=tuple(
            each for point, here in entries.items() for each in comparisons.controls(point, here)
        ),
    )


if __name__ == "__main__":
    typer.run(main)
