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
import time
import warnings
from pathlib import Path
from typing import Annotated

import optuna
import typer
from main_job_summary import Arm, Cell, summarise, write_summary
from main_job_table import print_summary
from pydantic import ValidationError
from rich.console import Console

from pruners.errors import PrunetuneError
from pruners.published import published
from pruners.shape import Shape
from search.evaluators import SPLITS, Evaluator
from search.export import versions
from search.measuring import Measurements
from search.model_choice import choose_model, make_evaluator, target_shape
from search.searching import search_schedule
from search.selection import confirm
from search.settings import SearchSettings
from search.strategies import strategy_settings
from space.budgets import Budget, parse_budget
from space.coding import SearchSpace
from space.flops import price
from studies.files import write_text
from studies.identity import SplitIdentity, StudyIdentity
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
    trials: Annotated[int | None, typer.Option(min=1, help="Default: the program's own.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Samples of the search split. Default: the program's own."),
    ] = None,
    stages: Annotated[int, typer.Option(min=0, max=4)] = 3,
    model: Annotated[str, typer.Option(help="embedded or analytic.")] = "embedded",
    work: Annotated[Path, typer.Option(help="Finished cells are kept here.")] = Path(
        "runs/main_job"
    ),
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
) -> None:
    """Measure every cell that is not yet there, print the table, write the JSON."""
    console = Console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    settings = SearchSettings()
    settings = settings.model_copy(
        update={"trials": trials or settings.trials, "samples": samples or settings.samples}
    )
    try:
        evaluator = make_evaluator(choose_model(model))
        target = target_shape(None, evaluator)
        limits = [parse_budget(text) for text in budgets or []] or default_budgets(target)
        spaces = [search_space(budget, target, evaluator, stages) for budget in limits]
        identity = benchmark_identity(evaluator, target, stages, settings)
        with StudyFolder.open(work, identity) as folder:
            cells = measure_cells(folder, evaluator, spaces, settings, seeds, console)
            kept = Measurements(evaluator, folder.scores)
            summary = summarise(cells, [space.budget for space in spaces], target, kept)
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
    step = max(1, target.decoder_layers // evaluator.shape.decoder_layers)
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
            **strategy_settings(settings.strategy),
            **settings.model_dump(mode="json", exclude={"seed", "strategy"}),
        },
        seed=0,
        versions=versions(),
    )


def measure_cells(
    folder: StudyFolder,
    evaluator: Evaluator,
    spaces: list[SearchSpace],
    settings: SearchSettings,
    seeds: int,
    console: Console,
) -> list[Cell]:
    """Measure the cells that are missing; whole seeds first, so that a stop leaves whole seeds."""
    wanted = [(seed, space) for seed in range(seeds) for space in spaces]
    cells, durations = [], []
    for number, (seed, space) in enumerate(wanted, start=1):
        path = folder.path / f"cell-{str(space.budget).replace(' ', '-')}-seed-{seed}.json"
        cell = _read_cell(path)
        if cell is None:
            started = time.monotonic()
            cell = measure_cell(folder, evaluator, space, settings, seed)
            write_text(path, cell.model_dump_json(indent=2) + "\n")
            durations.append(time.monotonic() - started)
            left = (len(wanted) - number) * sum(durations) / len(durations) / 60
            console.print(
                f"{number}/{len(wanted)} cells: {space.budget}, seed {seed}, "
                f"{durations[-1]:.0f} s, at most {left:.0f} min left",
                markup=False,
                highlight=False,
            )
        cells.append(cell)
    return cells


def measure_cell(
    folder: StudyFolder,
    evaluator: Evaluator,
    space: SearchSpace,
    settings: SearchSettings,
    seed: int,
) -> Cell:
    """Search one budget with one seed, twice: the program's way, and at random."""
    own = settings.model_copy(update={"seed": seed})
    kept = Measurements(evaluator, folder.scores, limits=own.limits, seed=seed)
    searched = _arm(evaluator, kept, space, own)
    random = _arm(
        evaluator,
        kept,
        space,
        own.model_copy(
            update={
                "strategy": "random",
                "published_first": False,
                "trials": UNLIMITED_TRIALS,
                "evaluations": searched.evaluations,
            }
        ),
    )
    return Cell(budget=str(space.budget), seed=seed, searched=searched, random=random)


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


def _read_cell(path: Path) -> Cell | None:
    try:
        return Cell.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise PrunetuneError(f"{path} is no cell of this benchmark ({error}); remove it") from error


if __name__ == "__main__":
    typer.run(main)
