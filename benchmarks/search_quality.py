"""How good the schedules are that strategies find, at equal cost, by the ground truth.

Every strategy runs through the program's own search at five budgets, on the table that
`ground_truth.py` made of the embedded model: its incumbent's accuracy on the report split is known,
and so is what the best schedule of the table has.

    python benchmarks/search_quality.py --workers 2

prints tables and writes ``benchmarks/results/search-quality.json``,
``docs/images/search-quality.png`` and the tables of ``docs/search-quality.md``. Finished cells are
kept under ``runs/search_quality``: the same command continues after an interruption. After a change
of a strategy, ``--again NAME``.

    python benchmarks/search_quality.py --tune --workers 2

never reads the report split: one half of the search split's images is searched and the other stands
in for the report split, other ones for each seed. It tries several numbers of samples per trial for
each strategy that has a fixed one, and writes the best to
``benchmarks/data/search-quality-settings.json``, so that peers are run at their best.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from search_quality_cells import Job, report_accuracies, run_job, start_worker, table_evaluator
from search_quality_figure import draw, panels
from search_quality_page import write_page
from search_quality_records import Cell, read_cell
from search_quality_summary import summarise, value
from search_quality_table import print_summary
from search_quality_tuning import (
    TUNING_SEEDS,
    best_choices,
    choices_at,
    print_choices,
    read_settings,
    samples_per_trial,
    write_settings,
)

from pruners.errors import PrunetuneError, SettingsError
from search.strategies import STRATEGIES
from studies.files import write_text

HERE = Path(__file__).parent
TABLE = HERE / "data" / "ground-truth-embedded.parquet"
RESULTS = HERE / "results" / "search-quality.json"
SETTINGS = HERE / "data" / "search-quality-settings.json"
FIGURE = HERE.parent / "docs" / "images" / "search-quality.png"
PAGE = HERE.parent / "docs" / "search-quality.md"
OURS = "adaptive"


def main(
    strategies: Annotated[str, typer.Option(help="Names, by commas. Default: all.")] = "",
    budgets: Annotated[str, typer.Option(help="Mean visual tokens, by commas.")] = "72,48,32,16,8",
    costs: Annotated[
        str, typer.Option(help="Samples per budget, by commas.")
    ] = "250,1000,4000,16000",
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of each cell.")] = 10,
    tune: Annotated[
        bool, typer.Option("--tune", help="On halves of the search split; see above.")
    ] = False,
    again: Annotated[str, typer.Option(help="Strategies whose cells are measured again.")] = "",
    ours: Annotated[str, typer.Option(help="The strategy that others are compared with.")] = OURS,
    workers: Annotated[int, typer.Option(min=1, help="Cells at a time, each on one core.")] = 1,
    table: Annotated[Path, typer.Option(help="What ground_truth.py wrote.")] = TABLE,
    settings: Annotated[Path, typer.Option(help="Samples per trial that --tune found.")] = SETTINGS,
    work: Annotated[Path, typer.Option(help="Finished cells are kept here.")] = Path(
        "runs/search_quality"
    ),
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
    figure: Annotated[Path, typer.Option(help="The figure to write.")] = FIGURE,
    page: Annotated[Path, typer.Option(help="The page whose tables are replaced.")] = PAGE,
) -> None:
    """Measure every cell that is not yet there, print the tables, write the JSON and the figure."""
    console = Console()
    try:
        names = _names(strategies) or list(STRATEGIES)
        limits = [int(text) for text in costs.split(",")]
        tokens = tuple(int(text) for text in budgets.split(","))
        folder = work / searched(table) / ("tuning" if tune else "report")
        jobs = (
            tuning_jobs(names, limits, tokens, seeds)
            if tune
            else report_jobs(names, limits, tokens, seeds, settings)
        )
        cells = [
            value(cell, report_accuracies(table, cell.seed if tune else None))
            for cell in measure(jobs, table, folder, _names(again), workers, console)
        ]
        if tune:
            choices = best_choices(cells)
            print_choices(choices, console)
            write_settings(choices, settings)
            return
        summary = summarise(cells, table_evaluator(table), ours)
        print_summary(summary, console)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, summary.model_dump_json(indent=1) + "\n")
        draw(panels(summary, table_evaluator(table).shape.visual_tokens), figure)
        write_page(summary, page)
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    console.print(f"Written to {out}, {figure} and {page}", markup=False)


def searched(table: Path) -> str:
    """Name a table by what searches see of it: its schedules, and the search split's samples."""
    evaluator = table_evaluator(table)
    content = evaluator.fingerprint + evaluator.split_fingerprint("search")
    return f"{table.stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def report_jobs(
    strategies: Sequence[str],
    costs: Sequence[int],
    budgets: tuple[int, ...],
    seeds: int,
    settings: Path,
) -> list[Job]:
    """List the cells of the benchmark, whole seeds first, so that a stop leaves whole seeds."""
    chosen = read_settings(settings)
    return [
        Job(strategy, cost, seed, samples_per_trial(chosen, strategy, cost), budgets, tuning=False)
        for seed in range(seeds)
        for cost in costs
        for strategy in strategies
    ]


def tuning_jobs(
    strategies: Sequence[str], costs: Sequence[int], budgets: tuple[int, ...], seeds: int
) -> list[Job]:
    """List the cells of the tuning."""
    return [
        Job(strategy, cost, TUNING_SEEDS + seed, samples, budgets, tuning=True)
        for seed in range(seeds)
        for cost in costs
        for strategy in strategies
        for samples in choices_at(strategy, cost)
    ]


def measure(
    jobs: Sequence[Job],
    table: Path,
    folder: Path,
    again: Sequence[str],
    workers: int,
    console: Console,
) -> list[Cell]:
    """Measure the cells that are missing or asked for again."""
    paths = {job: folder / job.file for job in jobs}
    missing = [job for job in jobs if job.strategy in again or not paths[job].exists()]
    started = time.monotonic()
    # New processes: a fork of one that runs threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker) as pool:
        running = {pool.submit(run_job, table, job): job for job in missing}
        try:
            for number, future in enumerate(as_completed(running), start=1):
                cell = future.result()
                cell.write(paths[running[future]])
                elapsed = (time.monotonic() - started) / 60
                left = elapsed * (len(missing) - number) / number
                console.print(
                    f"{number}/{len(missing)} cells: {cell.strategy}, {cell.cost} samples, seed "
                    f"{cell.seed}, {cell.seconds:.0f} s; {elapsed:.1f} min, about {left:.0f} min "
                    "left",
                    markup=False,
                    highlight=False,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the cells that run are waited for, others not
            raise
    return [read_cell(path) for path in paths.values()]


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        raise SettingsError(
            f"there is no strategy {unknown[0]!r}; expected some of {', '.join(STRATEGIES)}"
        )
    return names


if __name__ == "__main__":
    typer.run(main)
