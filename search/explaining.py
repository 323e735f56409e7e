"""What a run would do and how long it would take, without doing it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pruners.files import load_schedule
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.scorers import QuestionReader
from search.baselines import compared_methods, left_out, published_at
from search.display import Display
from search.export import given_text_tower, measurement_note
from search.measured_form import as_measured
from search.measuring import Measurements
from search.model_choice import explain_choice
from search.planning import Plan
from search.selection import BLOCK
from search.settings import SearchSettings
from space.budgets import to_decimals
from space.flops import dense_cost
from studies.identity import SPLITS
from studies.intervals import FEWEST_IMAGES
from studies.wording import counted

_RACED_SHARE = 0.5
"""Share of the search split that a trial is scored on, roughly: most leave the race early."""


class ExpectedTime(NamedTuple):
    """How long a run would take, in seconds.

    Attributes:
        search: The search of one budget.
        total: All budgets, with dense, confirming and reporting.
        limited: Whether the time limit ends the search.
    """

    search: float
    total: float
    limited: bool


def opening_lines(plan: Plan) -> list[str]:
    """Say what will be measured and searched.

    Args:
        plan: The plan.

    Returns:
        Lines; the first says which model, why, and how to choose.
    """
    return [
        explain_choice(plan.choice),
        f"Measured on: {plan.evaluator.measured_on}",
        f"Priced for: {plan.target.name}, dense {to_decimals(dense_cost(plan.target).tflops)} "
        "TFLOPs",
        *(f"Budget: {space.budget.describe(space.shape)}" for space in plan.spaces),
    ]


def closing_lines(plan: Plan, schedules: Sequence[Path], page: Path) -> list[str]:
    """Say where the results are and how they are used.

    Args:
        plan: The plan.
        schedules: The files of schedules that were written, at least one.
        page: The study's page.

    Returns:
        Lines.
    """
    return [
        measurement_note(plan.evaluator, plan.target),
        *(f"Schedule: {file}" for file in schedules),
        f"Report: {page}",
        f"Everything else: {plan.folder}; its trials: prunetune dashboard {plan.folder}",
        "Use it: from pruners import apply_schedule, load_schedule; "
        f"apply_schedule(model, {_arguments(plan, schedules[0])})",
    ]


def few_images(tasks: Sequence[str], images: Sequence[str]) -> str | None:
    """Warn of intervals over so few images of a task that they tell next to nothing.

    Args:
        tasks: Task of each sample that was reported on.
        images: Image of each.

    Returns:
        One line on the task with the fewest, or None where there are enough.
    """
    counts = Counter(task for task, _ in set(zip(tasks, images, strict=True)))
    task, number = min(sorted(counts.items()), key=lambda item: item[1])
    if number >= FEWEST_IMAGES:
        return None
    where = f" of {task}" if len(counts) > 1 else ""
    return (
        f"Reported on {counted(number, 'image')}{where} only: intervals of fewer than "
        f"{FEWEST_IMAGES} are no guide, however narrow; give more with --report-samples"
    )


def _arguments(plan: Plan, path: Path) -> str:
    """What of a schedule's file, and of the tower that it was measured with, is to be written."""
    loading = f"load_schedule({json.dumps(str(path))})"
    tower = given_text_tower(plan.evaluator)
    if tower is None:
        return loading
    scorers = (stage.scorer for stage in load_schedule(path).stages)
    if not any(isinstance(scorer, QuestionReader) for scorer in scorers):
        return loading
    return f"{loading}, text_tower={json.dumps(tower)}"


def explain(plan: Plan, settings: SearchSettings, display: Display, *, continued: bool) -> None:
    """Show what a run would do; a block of samples is measured to estimate its time.

    Args:
        plan: The plan.
        settings: How each budget would be searched.
        display: Where to show it.
        continued: Whether the study exists already.
    """
    for line in opening_lines(plan):
        display.show(line)
    display.show(measurement_note(plan.evaluator, plan.target))
    space = plan.spaces[0]
    display.show(
        f"Space: {space.vocabulary.name}, {len(space.parameters)} parameters, up to "
        f"{space.decoder_stages} decoder stages at multiples of layer {space.layer_step}"
    )
    for parameter in space.parameters:
        display.show(f"  {parameter.name}: {parameter}")
    for each in plan.spaces:
        if (missing := left_out(each)) is not None:
            display.show(missing)
    display.show(
        f"Search: {settings.strategy}, {counted(settings.trials, 'trial')} per budget, "
        f"seed {settings.seed}"
    )
    expected = expected_time(plan, settings)
    limit = f" (limited by --timeout {settings.timeout:g})" if expected.limited else ""
    display.show(
        f"Expected time with one process: about {_minutes(expected.search)} of search per "
        f"budget{limit}, {_minutes(expected.total)} in all"
    )
    verb = "continue" if continued else "create"
    display.show(f"Dry run: no study was written; the run would {verb} {plan.folder}")


def expected_time(plan: Plan, settings: SearchSettings) -> ExpectedTime:
    """Estimate how long a run takes, from a few blocks measured here and now.

    Args:
        plan: The plan.
        settings: How each budget would be searched.

    Returns:
        The estimate, for this process alone. What an earlier run has already measured is not
        deducted.
    """
    measurements = Measurements(plan.evaluator, limits=settings.limits, seed=settings.seed)
    space = plan.spaces[0]
    published = published_at(space.budget, space.shape)
    pruned = _seconds_per_sample(measurements, next(iter(published.values()), dense(plan.target)))
    unpruned = _seconds_per_sample(measurements, dense(plan.target))
    samples = {split: len(measurements.samples(split)) for split in SPLITS}
    search = settings.trials * _RACED_SHARE * samples["search"] * pruned
    limited = settings.timeout is not None and search > settings.timeout
    if settings.timeout is not None:
        search = min(search, settings.timeout)
    reported = 1 + len(compared_methods(space))
    after = settings.candidates * samples["confirm"] + reported * samples["report"]
    total = sum(samples.values()) * unpruned + len(plan.spaces) * (search + after * pruned)
    return ExpectedTime(search, total, limited)


def _seconds_per_sample(measurements: Measurements, schedule: Schedule) -> float:
    """Time a block of samples; the one before it is not timed, as it pays for loading."""
    measured = as_measured(schedule, measurements.evaluator.shape)
    available = len(measurements.samples("search"))
    block = max(1, min(BLOCK, available // 2))
    measurements.scores(measured, "search", range(min(block, available)))
    timed = range(block, min(2 * block, available)) or range(block)
    started = time.perf_counter()
    measurements.scores(measured, "search", timed)
    return (time.perf_counter() - started) / len(timed)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes"
