"""Searched schedules against random search and published schedules, at the same cost.

For every budget and seed, the program's own search runs as a user would run it, then random search
with as many evaluated samples. Winners are chosen on the confirm split; every schedule, published
ones included, is scored on the report split, which neither search has seen.

Budgets are the TFLOPs that VisionDrop's published schedules cost when they keep 50, 33, 22 and 11 %
of the visual tokens, as the papers count. (No schedule costs 11 % of the dense TFLOPs: the vision
tower and the text alone are 14 %.)

    python benchmarks/main_job.py

prints one table and writes ``benchmarks/results/main_job.json``. Every finished cell is saved under
``runs/main_job``: the same command continues after an interruption, and ``--seeds 10`` adds to what
``--seeds 5`` has measured.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import optuna
import typer
from main_job_summary import Arm, Cell, summarise, write_summary
from main_job_table import print_summary
from pydantic import ValidationError
from rich.console import Console

from pruners.errors import PrunetuneError
from pruners.published import dense, published
from pruners.shape import Shape
from search.evaluators import Evaluator
from search.export import versions
from search.measuring import Measurements
from search.model_choice import choose_model, make_evaluator, target_shape
from search.searching import search_schedule
from search.selection import confirm, score_split
from search.settings import SearchSettings
from search.strategies import make_strategy
from space.budgets import Budget, parse_budget
from space.coding import SearchSpace
from space.flops import price
from studies.files import write_text
from studies.identity import SPLITS, SplitIdentity, StudyIdentity
from studies.scores import ScoreCache
from studies.storage import StudyFolder

RESULTS = Path(__file__).parent / "results" / "main_job.json"
SHARES_OF_TOKENS = (1 / 2, 1 / 3, 2 / 9, 1 / 9)
"""288, 192, 128 and 64 of LLaVA-1.5's 576 visual tokens."""

UNLIMITED_TRIALS = 1_000_000  # random search ends by its samples, not by its trials


def main(
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            help="Repeat for several. Default: what VisionDrop costs at 50, 33, 22 and 11 % of "
            "the visual tokens.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... per budget.")] = 5,
    strategy: Annotated[
        str, typer.Option(help="The searching strategy, which random search is compared with.")
    ] = "tpe",
    trials: Annotated[int, typer.Option(min=1, help="Trials of the searching strategy.")] = 100,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Samples of the search split. Default: the program's own."),
    ] = None,
    confirm_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Samples of the confirm split. Default: the program's own."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Cells at a time, each on its share of the cores.")
    ] = 1,
    stages: Annotated[int, typer.Option(min=0, max=4)] = 3,
    model: Annotated[str, typer.Option(help="embedded or analytic.")] = "embedded",
    study: Annotated[Path, typer.Option(help="Finished cells are kept here.")] = Path(
        "runs/main_job"
    ),
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
) -> None:
    """Measure every cell that is not yet there, print the table, write the JSON."""
    console = Console()
    chosen = {"trials": trials, "samples": samples, "confirm_samples": confirm_samples}
    given = {name: value for name, value in chosen.items() if value}
    settings = SearchSettings(strategy=strategy, **given)
    try:
        evaluator = make_evaluator(choose_model(model))
        target = target_shape(None, evaluator)
        limits = [parse_budget(text) for text in budgets or []] or default_budgets(target)
        spaces = [search_space(budget, target, evaluator, stages) for budget in limits]
        identity = benchmark_identity(evaluator, target, stages, settings)
        with StudyFolder.open(study, identity) as folder:
            cells = measure_cells(folder, model, spaces, settings, seeds, workers, console)
            kept = Measurements(evaluator, folder.scores)
            summary = summarise(cells, limits, target, kept, settings, workers)
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    print_summary(summary, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_summary(summary, out)
    console.print(f"Written to {out}", markup=False)


def default_budgets(target: Shape) -> list[Budget]:
    """What VisionDrop costs at the papers' token counts, rounded up to 10^9 FLOPs."""
    schedules = [
        published("visiondrop", round(share * target.visual_tokens), target)
        for share in SHARES_OF_TOKENS
    ]
    costs = [price(schedule, target).tflops for schedule in schedules]
    return [Budget("tflops", math.ceil(1000 * cost) / 1000) for cost in costs]


def search_space(budget: Budget, target: Shape, evaluator: Evaluator, stages: int) -> SearchSpace:
    """The space that the program itself searches at a budget."""
    step = max(1, math.ceil(target.decoder_layers / evaluator.shape.decoder_layers))
    return SearchSpace(target, budget, decoder_stages=stages, layer_step=step)


def benchmark_identity(
    evaluator: Evaluator, target: Shape, stages: int, settings: SearchSettings
) -> StudyIdentity:
    """What cells must have in common; budgets and seeds are those of the single cells."""
    return StudyIdentity(
        model=evaluator.name,
        model_fingerprint=evaluator.fingerprint,
        shape=target,
        tasks=tuple(sorted({sample.task for sample in evaluator.samples("report")})),
        splits={
            split: SplitIdentity(
                samples=len(evaluator.samples(split)),
                fingerprint=evaluator.split_fingerprint(split),
            )
            for split in SPLITS
        },
        budgets=(),
        space={"decoder_stages": stages},
        strategy={
            **make_strategy(settings).identity(),
            **settings.model_dump(mode="json", exclude={"seed", "strategy"}),
        },
        seed=0,
        versions=versions(),
    )


def measure_cells(
    folder: StudyFolder,
    model: str,
    spaces: list[SearchSpace],
    settings: SearchSettings,
    seeds: int,
    workers: int,
    console: Console,
) -> list[Cell]:
    """Measure the cells that are missing; whole seeds first, so that a stop leaves whole seeds."""
    paths = {
        (space.budget, seed): folder.path
        / f"cell-{str(space.budget).replace(' ', '-')}-seed-{seed}.json"
        for seed in range(seeds)
        for space in spaces
    }
    spaces_of = {space.budget: space for space in spaces}
    missing = [key for key, path in paths.items() if not path.exists()]
    started = time.monotonic()
    # New processes: a fork of one that runs threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (workers,)) as pool:
        running = {
            pool.submit(
                measure_cell,
                folder.scores.path,
                model,
                spaces_of[budget],
                settings.model_copy(update={"seed": seed}),
            ): paths[budget, seed]
            for budget, seed in missing
        }
        try:
            for number, future in enumerate(as_completed(running), start=1):
                cell = future.result()
                write_text(running[future], cell.model_dump_json(indent=2) + "\n")
                elapsed = (time.monotonic() - started) / 60
                left = elapsed * (len(missing) - number) / number
                console.print(
                    f"{number}/{len(missing)} cells: {cell.budget}, seed {cell.seed}; "
                    f"{elapsed:.1f} min, about {left:.0f} min left",
                    markup=False,
                    highlight=False,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the cells that run are waited for, others not
            raise
    return [_read_cell(path) for path in paths.values()]


def _start_worker(workers: int) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


@cache
def _evaluator(model: str) -> Evaluator:
    """One per process: its images are encoded once, for all cells."""
    return make_evaluator(choose_model(model))


def measure_cell(scores: Path, model: str, space: SearchSpace, settings: SearchSettings) -> Cell:
    """Search one budget with one seed, twice: the program's way, and at random."""
    evaluator = _evaluator(model)
    with ScoreCache(scores) as cache:
        kept = Measurements(evaluator, cache, limits=settings.limits, seed=settings.seed)
        # Loaded and encoded before any clock starts, for both searches alike.
        for split in SPLITS:
            evaluator.score(dense(evaluator.shape), split, [0])
        searched = _arm(evaluator, kept, space, settings)
        random_settings = settings.model_copy(
            update={
                "strategy": "random",
                "published_first": False,
                "trials": UNLIMITED_TRIALS,
                "evaluations": searched.evaluations,
            }
        )
        random = _arm(evaluator, kept, space, random_settings)
        winners = {"searched": searched.schedule, "random": random.schedule}
        score_split(kept, winners, "report")  # kept for the summary
    return Cell(budget=str(space.budget), seed=settings.seed, searched=searched, random=random)


def _arm(
    evaluator: Evaluator, kept: Measurements, space: SearchSpace, settings: SearchSettings
) -> Arm:
    started = time.monotonic()
    # A cache of its own: what another search has measured must not shorten this one.
    fresh = Measurements(evaluator, limits=settings.limits, seed=settings.seed)
    outcome = search_schedule(fresh, space, settings)
    winner = confirm(kept, outcome.candidates[: settings.candidates])
    return Arm(
        schedule=winner.schedule,
        trials=outcome.trials,
        evaluations=outcome.evaluations,
        seconds=time.monotonic() - started,
    )


def _read_cell(path: Path) -> Cell:
    try:
        return Cell.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise PrunetuneError(f"{path} is no cell of this benchmark ({error}); remove it") from error


if __name__ == "__main__":
    typer.run(main)
