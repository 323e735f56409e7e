"""How often the printed 95 % intervals hold what they promise, winner's curse included.

    python benchmarks/interval_coverage.py

runs whole studies of the synthetic problem, on new samples each: search, choice on the confirm
split, report, and the intervals that are exported. There the true relative accuracy of every
schedule is known, so that one can count how often it lies in the interval.

What is true conditions on the schedule: it is the relative accuracy, on infinitely many images like
the benchmark's, of the schedule that this study exported. Coverage is over studies, each of which
draws all its samples anew and exports what it finds in them.

Beside the interval of the report split there is that of the search split, on which the schedule was
among the best few, and that of the schedule which looked best there; and what all of them would be
if questions about one image counted as independent.
Prints a table, and writes ``benchmarks/results/interval_coverage.json``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import optuna
import typer
from interval_coverage_summary import RESAMPLED, Finding, Over, print_coverage, summarise
from rich.console import Console

from pruners.errors import PrunetuneError
from pruners.published import dense
from pruners.schedule import Schedule, SplitEvidence
from pruners.shape import Shape
from search.analytic import AnalyticEvaluator
from search.baselines import published_at
from search.display import Display
from search.measuring import Measurements
from search.searching import search_schedule
from search.selection import Scores, confirm, score_split
from search.settings import SearchSettings
from space.budgets import parse_budget
from space.coding import SearchSpace
from space.flops import price
from space.shapes import preset
from studies.comparing import compare, split_evidence
from studies.files import write_text
from studies.results import DENSE, SEARCHED, BudgetResult

RESULTS = Path(__file__).parent / "results" / "interval_coverage.json"
BUDGETS = ("50%", "33%", "22%")
RIVAL = "desap"
"""The published schedule that the searched one is compared with."""


def main(
    studies: Annotated[int, typer.Option(min=2, help="Simulated studies, in all.")] = 200,
    budgets: Annotated[
        list[str] | None,
        typer.Option("--budget", help="Repeat for several, in turn. Default: 50, 33 and 22 %."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each search.")] = 40,
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
) -> None:
    """Simulate studies, print how often intervals cover, write the JSON."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    console = Console()
    target = preset("llava-1.5-7b")
    findings = []
    try:
        spaces = [
            SearchSpace(target, parse_budget(text), layer_step=4) for text in budgets or BUDGETS
        ]
        settings = SearchSettings(trials=trials)
        with Display(console).bar("studies", studies) as advance:
            for seed in range(studies):
                findings += simulated_study(spaces[seed % len(spaces)], settings, seed)
                advance(1)
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    names = [str(space.budget) for space in spaces]
    summary = summarise(findings, studies, names, settings)
    print_coverage(summary, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, summary.model_dump_json(indent=2) + "\n")
    console.print(f"Written to {out}", markup=False)


def simulated_study(space: SearchSpace, settings: SearchSettings, seed: int) -> list[Finding]:
    """Run one study as the program does, and compare its intervals with the truth.

    Args:
        space: The schedules to choose from.
        settings: How to search; the seed is replaced.
        seed: Seed of the samples' luck and of the search.

    Returns:
        Each interval with the truth, under names that are the same for every study.
    """
    evaluator = AnalyticEvaluator(seed)
    measurements = Measurements(evaluator, seed=seed)
    outcome = search_schedule(measurements, space, settings.model_copy(update={"seed": seed}))
    favourite = outcome.candidates[0].schedule
    winner = confirm(measurements, outcome.candidates[: settings.candidates]).schedule
    schedules = {
        SEARCHED: winner,
        DENSE: _priced_dense(space.shape),
        **published_at(space.budget, space.shape, [RIVAL]),
    }
    favourites = {SEARCHED: favourite, DENSE: schedules[DENSE]}
    truth = {
        name: evaluator.relative_accuracy(measurements.measured_form(schedule))
        for name, schedule in {**schedules, "favourite": favourite}.items()
    }
    on_report = score_split(measurements, schedules, "report")
    on_search = score_split(measurements, schedules, "search")
    favourite_on_search = score_split(measurements, favourites, "search")
    findings = []
    for over in RESAMPLED:
        result = _result(schedules, on_report, over, space)
        exported = result.schedule(SEARCHED).evidence
        for name, schedule, evidence in (
            ("report split", SEARCHED, exported),
            ("search split", SEARCHED, _evidence(on_search, over)),
            ("search split, its favourite", "favourite", _evidence(favourite_on_search, over)),
        ):
            findings.append(
                Finding(
                    interval=name,
                    over=over,
                    estimate=evidence.relative_accuracy,
                    ends=evidence.interval_95,
                    truth=truth[schedule],
                )
            )
        for comparison in result.comparisons:
            if comparison.other == RIVAL:
                findings.append(
                    Finding(
                        interval="report split, minus DeSAP",
                        over=over,
                        estimate=comparison.difference,
                        ends=comparison.interval_95,
                        truth=truth[SEARCHED] - truth[RIVAL],
                    )
                )
    return findings


def _result(
    schedules: dict[str, Schedule], scores: Scores, over: Over, space: SearchSpace
) -> BudgetResult:
    return compare(
        schedules,
        scores.by_schedule,
        scores.tasks,
        scores.images if over == "images" else None,
        budget=str(space.budget),
        measured_on=AnalyticEvaluator.measured_on,
        trials=0,
        evaluations=0,
        seconds=0,
    )


def _evidence(scores: Scores, over: Over) -> SplitEvidence:
    return split_evidence(
        scores.by_schedule[SEARCHED],
        scores.by_schedule[DENSE],
        scores.tasks,
        scores.images if over == "images" else None,
    )


def _priced_dense(target: Shape) -> Schedule:
    schedule = dense(target)
    return schedule.model_copy(update={"cost": price(schedule, target)})


if __name__ == "__main__":
    typer.run(main)
