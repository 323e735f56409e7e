"""What the scores of `methods.py` add up to, and how that is written as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from methods_schedules import BudgetPoint, Entry
from methods_scoring import SPLIT, scores_of
from numpy.typing import NDArray
from pydantic import ValidationError
from records import Record

from pruners.errors import StudyError
from pruners.published import dense, published
from pruners.shape import Shape
from search.export import versions
from search.measured_form import measured_share
from search.measuring import Measurements
from space.flops import dense_cost, price
from studies.files import write_text
from studies.results import FAR
from studies.statistics import paired_interval, relative_accuracy, task_accuracies


class MethodResult(Record):
    """A method at one budget; the random control has one schedule per seed, others have one.

    Attributes:
        name: What `published` calls it.
        label: What its authors call it.
        control: Whether it is a control.
        relative_accuracy: On the report split, mean over seeds.
        interval_95: 95 % bootstrap interval over images of that mean, paired with dense.
        per_seed: Relative accuracy of each seed's schedule.
        spread: Standard deviation over seeds; None without several.
        tasks: Accuracy by task.
        mean_visual_tokens: Visual tokens, averaged over the target's decoder layers.
        share_of_tokens: The same as a share of the target's.
        measured_share_of_tokens: That share on the measured model, whose fewer layers and tokens
            cannot follow every boundary and count.
        tflops: Cost, convention `total`.
        share_of_dense: Its share of the dense cost.
        llm_macs: Cost in 10^12 multiply-accumulates, convention `llm-macs`.
        llm_share_of_dense: Its share of the dense cost in that convention.
        layers: Boundary of each stage in the target's decoder.
        visual_tokens: Visual tokens alive after each stage.
    """

    name: str
    label: str
    control: bool
    relative_accuracy: float
    interval_95: tuple[float, float]
    per_seed: tuple[float, ...]
    spread: float | None
    tasks: dict[str, float]
    mean_visual_tokens: float
    share_of_tokens: float
    measured_share_of_tokens: float
    tflops: float
    share_of_dense: float
    llm_macs: float
    llm_share_of_dense: float
    layers: tuple[int, ...]
    visual_tokens: tuple[int, ...]

    @property
    def flattered(self) -> bool:
        """Whether it keeps far more tokens on the measured model than it is priced for."""
        return self.measured_share_of_tokens > FAR * self.share_of_tokens


class BudgetSummary(Record):
    """All methods at one budget.

    Attributes:
        tokens: Mean visual tokens of VisionDrop's published schedule, whose cost is the budget.
        budget: The budget.
        tflops: The same as a number.
        share_of_dense: Its share of the dense cost, convention `total`.
        llm_share_of_dense: What VisionDrop's schedule costs under `llm-macs`, as a share of dense.
        methods: The methods that meet it, best first.
        not_met: Why the others do not, by name.
    """

    tokens: int
    budget: str
    tflops: float
    share_of_dense: float
    llm_share_of_dense: float
    methods: tuple[MethodResult, ...]
    not_met: dict[str, str]


class Summary(Record):
    """The whole benchmark.

    Attributes:
        measured_on: The measured model, in words.
        priced_for: Name of the shape that costs refer to.
        samples: Samples of the report split that were used.
        dense_accuracy: Mean over tasks of the dense model's accuracy.
        dense_tasks: The dense model's accuracy by task.
        dense_tflops: Cost of the dense model, convention `total`.
        dense_llm_macs: The same, convention `llm-macs`.
        versions: Versions of the libraries that decide the result.
        budgets: One summary per budget, the largest first.
    """

    measured_on: str
    priced_for: str
    samples: int
    dense_accuracy: float
    dense_tasks: dict[str, float]
    dense_tflops: float
    dense_llm_macs: float
    versions: dict[str, str]
    budgets: tuple[BudgetSummary, ...]


def summarise(
    entries: Mapping[BudgetPoint, Sequence[Entry]], target: Shape, kept: Measurements
) -> Summary:
    """Sum up the scores of all methods at all budgets.

    Args:
        entries: The methods by budget.
        target: What schedules are priced for.
        kept: Scores on the report split; what they know already is not measured again.

    Returns:
        The summary, methods of a budget by falling relative accuracy.
    """
    tasks = kept.tasks(SPLIT)
    dense_scores = scores_of(dense(kept.evaluator.shape), kept)
    dense_tasks = task_accuracies(dense_scores, tasks)
    cost = dense_cost(target)
    return Summary(
        measured_on=kept.evaluator.measured_on,
        priced_for=target.name,
        samples=len(tasks),
        dense_accuracy=float(np.mean(list(dense_tasks.values()))),
        dense_tasks=dense_tasks,
        dense_tflops=cost.tflops,
        dense_llm_macs=cost.llm_macs,
        versions=versions(),
        budgets=tuple(
            _budget_summary(point, here, target, kept, dense_scores)
            for point, here in sorted(entries.items(), key=lambda item: -item[0].budget.value)
        ),
    )


def write_record(record: Record, path: Path) -> None:
    """Write a result as JSON.

    Args:
        record: The result.
        path: The file to write or replace.

    Raises:
        StudyError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_summary(path: Path) -> Summary:
    """Read what `write_record` wrote of a summary.

    Args:
        path: The file.

    Returns:
        The summary.

    Raises:
        StudyError: The file cannot be read or holds no such summary.
    """
    try:
        return Summary.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise StudyError(
            f"{path} does not hold this benchmark's results ({error}); measure them first"
        ) from error


def _budget_summary(
    point: BudgetPoint,
    entries: Sequence[Entry],
    target: Shape,
    kept: Measurements,
    dense_scores: NDArray[np.float64],
) -> BudgetSummary:
    results = [
        _method_result(entry, target, kept, dense_scores) for entry in entries if entry.schedules
    ]
    cost = dense_cost(target)
    reference = published("visiondrop", point.tokens, target)
    return BudgetSummary(
        tokens=point.tokens,
        budget=str(point.budget),
        tflops=point.budget.value,
        share_of_dense=point.budget.value / cost.tflops,
        llm_share_of_dense=price(reference, target).llm_macs / cost.llm_macs,
        methods=tuple(sorted(results, key=lambda result: -result.relative_accuracy)),
        not_met={entry.method.name: entry.refusal for entry in entries if entry.refusal},
    )


def _method_result(
    entry: Entry, target: Shape, kept: Measurements, dense_scores: NDArray[np.float64]
) -> MethodResult:
    tasks = kept.tasks(SPLIT)
    scores = np.stack([scores_of(schedule, kept) for schedule in entry.schedules])
    # A sample's mean over seeds is what the method scores there on average, so that its interval is
    # over samples like that of a single schedule.
    mean = scores.mean(axis=0)
    per_seed = tuple(relative_accuracy(row, dense_scores, tasks) for row in scores)
    schedule = entry.schedules[0]  # seeds change neither counts nor cost
    cost, dense_model = price(schedule, target), dense_cost(target)
    counts = schedule.counts(target.visual_tokens, target.tokens_per_tile)
    return MethodResult(
        name=entry.method.name,
        label=entry.method.label,
        control=entry.method.control,
        relative_accuracy=relative_accuracy(mean, dense_scores, tasks),
        interval_95=paired_interval(mean, dense_scores, tasks, images=kept.images(SPLIT)),
        per_seed=per_seed,
        spread=statistics.stdev(per_seed) if len(per_seed) > 1 else None,
        tasks=task_accuracies(mean, tasks),
        mean_visual_tokens=cost.mean_visual_tokens,
        share_of_tokens=cost.mean_visual_tokens / target.visual_tokens,
        measured_share_of_tokens=measured_share(schedule, kept.evaluator.shape),
        tflops=cost.tflops,
        share_of_dense=cost.tflops / dense_model.tflops,
        llm_macs=cost.llm_macs,
        llm_share_of_dense=cost.llm_macs / dense_model.llm_macs,
        layers=tuple(count.layer for count in counts),
        visual_tokens=tuple(count.alive for count in counts),
    )
