"""What several studies found at the same budgets, paired where they measured the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pruners.published import dense
from studies.identity import leading
from studies.reading import StoredBudget, StoredStudy
from studies.results import SEARCHED, Comparison
from studies.statistics import Difference, differences
from studies.stored_scores import Samples, read_samples, read_scores

_SPLIT = "report"


@dataclass(frozen=True)
class ComparedStudy:
    """One study at one budget.

    Attributes:
        study: Name of the study.
        tflops: Cost of its schedule on its target, in 10^12 FLOPs; None without a result.
        mean_visual_tokens: Visual tokens alive, averaged over the target's decoder layers.
        relative_accuracy: Relative accuracy of its schedule on its report split.
        interval_95: The 95 % interval of it.
        comparison: The budget's first study minus this one, paired on the same samples.
        why_not: Why there is no comparison; empty where there is one, and for the first study.
    """

    study: str
    tflops: float | None
    mean_visual_tokens: float | None
    relative_accuracy: float | None
    interval_95: tuple[float, float] | None
    comparison: Comparison | None
    why_not: str


@dataclass(frozen=True)
class ComparedBudget:
    """All studies at one budget.

    Attributes:
        budget: The budget, with its unit.
        studies: Those that have it, in the order given.
    """

    budget: str
    studies: tuple[ComparedStudy, ...]


@dataclass(frozen=True)
class StudyComparison:
    """What several studies found.

    Attributes:
        budgets: The budgets that two studies or more have.
        notes: In what each study differs from the first, one sentence each.
    """

    budgets: tuple[ComparedBudget, ...]
    notes: tuple[str, ...]


def compare_studies(studies: Sequence[StoredStudy]) -> StudyComparison:
    """Compare the schedules that studies found with that of the first one which has the budget.

    Differences are paired per sample and Holm-corrected over the studies at a budget.

    Args:
        studies: The studies, at least two.

    Returns:
        The comparison.

    Raises:
        StudyError: Stored scores are damaged.
    """
    names = [study.name for study in studies]
    if len(set(names)) < len(names):
        studies = [replace(study, name=str(study.path)) for study in studies]
    shared = [
        budget
        for budget in dict.fromkeys(b for study in studies for b in study.identity.budgets)
        if sum(budget in study.identity.budgets for study in studies) > 1
    ]
    return StudyComparison(
        budgets=tuple(_compare_at(budget, studies) for budget in shared),
        notes=tuple(_note(studies[0], other) for other in studies[1:]),
    )


def _note(first: StoredStudy, other: StoredStudy) -> str:
    differing = leading(first.identity.differences(other.identity))
    fields = [each.field for each in differing]
    if not fields:
        return f"{other.name} and {first.name} are studies of the same."
    return f"{other.name} differs from {first.name} in {', '.join(fields)}."


@dataclass(frozen=True)
class _Scores:
    """Scores of a study's schedule and of the dense model, by sample."""

    searched: Mapping[str, float]
    dense: Mapping[str, float]
    samples: Samples


def _compare_at(budget: str, studies: Sequence[StoredStudy]) -> ComparedBudget:
    having = [
        (study, stored) for study in studies for stored in study.budgets if stored.budget == budget
    ]
    found = {study.name: _scores(study, stored) for study, stored in having}
    (first, _), *others = having
    reasons = {
        study.name: _why_not(first, found[first.name], study, found[study.name])
        for study, _ in others
    }
    paired = {name: found[name] for name, reason in reasons.items() if not reason}
    compared = _differences(found[first.name], paired)
    return ComparedBudget(
        budget=budget,
        studies=tuple(
            _row(study.name, stored, compared.get(study.name), reasons.get(study.name, ""))
            for study, stored in having
        ),
    )


def _scores(study: StoredStudy, stored: StoredBudget) -> _Scores | str:
    """Look up the scores that a result was computed from; where there are none, say why."""
    if stored.result is None or stored.schedule is None:
        return f"{study.name} has reported nothing yet"
    measured = [
        trial.measured_hash
        for trial in stored.trials
        if trial.content_hash == stored.schedule.content_hash and trial.measured_hash is not None
    ]
    if not measured:
        return f"the schedule of {study.name} is of none of its trials"
    samples = read_samples(study.path, _SPLIT)
    searched = read_scores(study.path, measured[0], _SPLIT)
    # A schedule without stages is the same on every model.
    reference = read_scores(study.path, dense(study.identity.shape).content_hash, _SPLIT)
    if not set(samples.identifiers) <= searched.keys() & reference.keys():
        return f"{study.name} has not kept the scores of its samples"
    return _Scores(searched, reference, samples)


def _why_not(
    first: StoredStudy, first_scores: _Scores | str, other: StoredStudy, scores: _Scores | str
) -> str:
    """Why two studies cannot be paired; empty where they can."""
    for missing in (first_scores, scores):
        if isinstance(missing, str):
            return missing
    if other.identity.model_fingerprint != first.identity.model_fingerprint:
        return "measured on another model"
    if other.identity.splits[_SPLIT] != first.identity.splits[_SPLIT]:
        return "measured on other samples"
    return ""


def _differences(
    first: _Scores | str, others: Mapping[str, _Scores | str]
) -> dict[str, Difference]:
    """The first study minus each other one, on the first one's samples."""
    if isinstance(first, str) or not others:
        return {}
    samples = first.samples
    columns = {
        name: _ordered(scores.searched, samples)
        for name, scores in others.items()
        if isinstance(scores, _Scores)
    }
    return differences(
        _ordered(first.searched, samples),
        columns,
        _ordered(first.dense, samples),
        samples.tasks,
        images=samples.images,
    )


def _ordered(scores: Mapping[str, float], samples: Samples) -> NDArray[np.float64]:
    return np.array([scores[name] for name in samples.identifiers])


def _row(
    name: str, stored: StoredBudget, difference: Difference | None, why_not: str
) -> ComparedStudy:
    result = None if stored.result is None else stored.result.schedule(SEARCHED)
    return ComparedStudy(
        study=name,
        tflops=None if result is None else result.tflops,
        mean_visual_tokens=None if result is None else result.mean_visual_tokens,
        relative_accuracy=None if result is None else result.evidence.relative_accuracy,
        interval_95=None if result is None else result.evidence.interval_95,
        comparison=None if difference is None else Comparison.of(name, difference),
        why_not=why_not,
    )
