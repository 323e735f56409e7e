"""What the cells of `main_job.py` add up to, and how that is written as JSON."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from records import Record

from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import Shape
from pruners.stages import SimilarityFusion
from search.baselines import published_at
from search.export import versions
from search.measuring import Measurements
from search.selection import score_split
from search.settings import SearchSettings
from space.budgets import Budget
from space.flops import price
from studies.files import write_text
from studies.results import DENSE, SEARCHED, Comparison
from studies.statistics import (
    differences,
    paired_interval,
    relative_accuracy,
    task_accuracies,
)

RANDOM = "random search"


class Arm(Record):
    """One search: its winner and what it took; `evaluations` counts samples of the search split."""

    schedule: Schedule
    trials: int
    evaluations: int
    seconds: float


class Cell(Record):
    """Both searches at one budget with one seed."""

    budget: str
    seed: int
    searched: Arm
    random: Arm


class Method(Record):
    """A method at one budget; searches have one schedule per seed, the others one for all.

    Attributes:
        name: Name of the method.
        tflops: Mean cost of its schedules.
        relative_accuracy: Mean over seeds, on the report split.
        interval_95: 95 % interval over images of that mean.
        per_seed: Relative accuracy of each seed's schedule.
        spread: Standard deviation over seeds; None without several.
        evaluations: Samples that each search scored.
        seconds: Wall-clock time of each search, choosing on the confirm split included.
        schedules: Layers, visual tokens, similarity weight and contextual share, per seed.
    """

    name: str
    tflops: float
    relative_accuracy: float
    interval_95: tuple[float, float]
    per_seed: tuple[float, ...]
    spread: float | None
    evaluations: tuple[int, ...]
    seconds: tuple[float, ...]
    schedules: tuple[dict[str, float | list[int]], ...]


class BudgetSummary(Record):
    """All methods at one budget; comparisons are of the means over seeds, Holm-corrected.

    Attributes:
        budget: The budget.
        share_of_dense: Its share of what the dense model spends, in the budget's own unit.
        methods: The searched schedules first.
        comparisons: The searched schedules against each other method.
        wins: Seeds whose searched schedule has the higher relative accuracy, by other method.
    """

    budget: str
    share_of_dense: float
    methods: tuple[Method, ...]
    comparisons: tuple[Comparison, ...]
    wins: dict[str, int]


class Summary(Record):
    """The whole benchmark."""

    measured_on: str
    priced_for: str
    report_samples: int
    dense_accuracy: float
    seeds: int
    trials: int
    search_samples: int
    confirm_samples: int
    workers: int
    processors: int | None
    versions: dict[str, str]
    budgets: tuple[BudgetSummary, ...]


def summarise(
    cells: Sequence[Cell],
    budgets: Sequence[Budget],
    target: Shape,
    kept: Measurements,
    settings: SearchSettings,
    workers: int,
) -> Summary:
    """Score all schedules on the report split and compare them.

    Args:
        cells: All budgets with all seeds.
        budgets: The budgets, in the order of the table.
        target: What schedules are priced for.
        kept: Scores of the measured model; what they know already costs nothing.
        settings: How each budget was searched.
        workers: Cells that were measured at a time.
    """
    used = Measurements(kept.evaluator, limits=settings.limits)
    tasks = kept.tasks("report")
    dense_scores = _report_scores(dense(kept.evaluator.shape), kept)
    return Summary(
        measured_on=kept.evaluator.measured_on,
        priced_for=target.name,
        report_samples=len(tasks),
        dense_accuracy=float(np.mean(list(task_accuracies(dense_scores, tasks).values()))),
        seeds=len({cell.seed for cell in cells}),
        trials=settings.trials,
        search_samples=len(used.samples("search")),
        confirm_samples=len(used.samples("confirm")),
        workers=workers,
        processors=os.cpu_count(),
        versions=versions(),
        budgets=tuple(
            _budget_summary(
                budget,
                [cell for cell in cells if cell.budget == str(budget)],
                target,
                kept,
                dense_scores,
            )
            for budget in budgets
        ),
    )


def write_summary(summary: Summary, path: Path) -> None:
    """Write the summary as JSON."""
    write_text(path, summary.model_dump_json(indent=2) + "\n")


def _budget_summary(
    budget: Budget,
    cells: Sequence[Cell],
    target: Shape,
    kept: Measurements,
    dense_scores: NDArray[np.float64],
) -> BudgetSummary:
    tasks, images = kept.tasks("report"), kept.images("report")
    arms = {
        SEARCHED: [cell.searched for cell in cells],
        RANDOM: [cell.random for cell in cells],
    }
    schedules = {name: [arm.schedule for arm in each] for name, each in arms.items()} | {
        name: [schedule] for name, schedule in published_at(budget, target).items()
    }
    scores = {
        name: np.stack([_report_scores(schedule, kept) for schedule in each])
        for name, each in schedules.items()
    }
    # A sample's mean over seeds is what the method scores there on average, so that intervals of
    # the means are paired over samples like those of single schedules.
    means = {name: each.mean(axis=0) for name, each in scores.items()}
    per_seed = {
        name: [relative_accuracy(row, dense_scores, tasks) for row in each]
        for name, each in scores.items()
    }
    others = {name: mean for name, mean in means.items() if name != SEARCHED}
    compared = differences(means[SEARCHED], others, dense_scores, tasks, images=images)
    return BudgetSummary(
        budget=str(budget),
        share_of_dense=budget.limit(target) / budget.amount(price(dense(target), target)),
        methods=tuple(
            Method(
                name=name,
                tflops=float(np.mean([price(each, target).tflops for each in schedules[name]])),
                relative_accuracy=relative_accuracy(mean, dense_scores, tasks),
                interval_95=paired_interval(mean, dense_scores, tasks, images=images),
                per_seed=tuple(per_seed[name]),
                spread=statistics.stdev(per_seed[name]) if len(per_seed[name]) > 1 else None,
                evaluations=tuple(arm.evaluations for arm in arms.get(name, [])),
                seconds=tuple(round(arm.seconds, 1) for arm in arms.get(name, [])),
                schedules=tuple(_outline(schedule, target) for schedule in schedules[name]),
            )
            for name, mean in means.items()
        ),
        comparisons=tuple(Comparison.of(name, difference) for name, difference in compared.items()),
        wins={
            name: sum(
                own > (per_seed[name][seed] if len(per_seed[name]) > 1 else per_seed[name][0])
                for seed, own in enumerate(per_seed[SEARCHED])
            )
            for name in others
        },
    )


def _report_scores(schedule: Schedule, kept: Measurements) -> NDArray[np.float64]:
    return score_split(kept, {DENSE: schedule}, "report").by_schedule[DENSE]


def _outline(schedule: Schedule, target: Shape) -> dict[str, float | list[int]]:
    counts = schedule.counts(target.visual_tokens, target.tokens_per_tile)
    outline: dict[str, float | list[int]] = {
        "layers": [count.layer for count in counts],
        "visual_tokens": [count.alive for count in counts],
    }
    if schedule.stages:
        scorer = schedule.stages[0].scorer
        outline["contextual"] = schedule.stages[0].contextual
        outline["similarity_weight"] = (
            scorer.weight if isinstance(scorer, SimilarityFusion) else 0.0
        )
    return outline
