"""Every published method and both controls, at the same cost.

At every budget each method is projected onto the same TFLOPs of a prefill of LLaVA-1.5-7B
(convention `total`, its own scoring and merging included) and measured on the whole report split of
the embedded model. Random tokens are drawn with five seeds.

Budgets are the TFLOPs that VisionDrop's published schedules cost when they keep 50, 33, 22, 11 and
5.6 % of the visual tokens. These are 50 to 5.6 % of the dense decoder's cost as papers count it
(convention `llm-macs`). Under convention `total` no schedule costs 11 % of the dense model: the
vision tower, the text and one visual token are already 14 %.

    python benchmarks/methods.py

prints a table per budget, writes ``benchmarks/results/methods.json`` and draws
``docs/images/methods.png``; ``--figure-only`` draws from that JSON. Every score is kept under
``runs/methods``: the same command continues after an interruption.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from methods_figure import draw, methods_figure
from methods_schedules import budget_points, chosen_methods, entry_at
from methods_scoring import all_scored
from methods_summary import read_summary, summarise, write_record
from methods_table import markdown, print_summary
from rich.console import Console

from pruners.errors import PrunetuneError
from pruners.published import dense
from search.display import Display
from search.model_choice import choose_model, make_evaluator, target_shape

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "methods.json"
FIGURE = ROOT / "docs" / "images" / "methods.png"


def main(
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Repeat for several. Default: all.")
    ] = None,
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            help="A budget is what VisionDrop costs at this many mean visual tokens; repeat for "
            "several. Default: 50, 33, 22, 11 and 5.6 % of the target's."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="What schedules are priced for. Default: llava-1.5-7b.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most samples, for a quick run. Default: all.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    model: Annotated[str, typer.Option(help="embedded or analytic.")] = "embedded",
    work: Annotated[Path, typer.Option(help="Scores are kept here.")] = Path("runs/methods"),
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
    figure: Annotated[Path, typer.Option(help="The figure to draw.")] = FIGURE,
    figure_only: Annotated[
        bool, typer.Option("--figure-only", help="Measure nothing; draw what --out holds.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print accuracies as a Markdown table as well.")
    ] = False,
) -> None:
    """Measure what is not yet known, print the table, write the JSON, draw the figure."""
    console = Console()
    display = Display(console)
    try:
        if figure_only:
            summary = read_summary(out)
        else:
            evaluator = make_evaluator(choose_model(model))
            shape = target_shape(target, evaluator)
            names = chosen_methods(methods)
            points = budget_points(tokens, shape)
            entries = {point: [entry_at(name, point, shape) for name in names] for point in points}
            schedules = [
                schedule
                for here in entries.values()
                for entry in here
                for schedule in entry.schedules
            ]
            schedules.insert(0, dense(evaluator.shape))
            with all_scored(schedules, evaluator, shape, work, limit, workers, display) as kept:
                summary = summarise(entries, shape, kept)
            write_record(summary, out)
        figure.parent.mkdir(parents=True, exist_ok=True)
        draw(methods_figure(summary), figure)
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    print_summary(summary, console)
    if as_markdown:
        display.show(markdown(summary))
    display.show(f"Written to {out} and {figure}")


if __name__ == "__main__":
    typer.run(main)
